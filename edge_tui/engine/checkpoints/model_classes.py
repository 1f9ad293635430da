"""Reads transformers' tables of model classes from its source, and says what a class is that writes no text.

Importing the tables would take seconds and load torch.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.weight_files import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

_CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_SEQUENCES = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"
_MASKED = "MODEL_FOR_MASKED_LM_MAPPING_NAMES"
_KINDS = (
    (("MODEL_FOR_IMAGE_TEXT_TO_TEXT", "MODEL_FOR_MULTIMODAL_LM"), "a vision–language or multimodal model"),
    (("MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM", "MODEL_FOR_SPEECH_SEQ_2_SEQ"), "an encoder–decoder model"),
    (
        ("MODEL_FOR_MASKED_LM", "MODEL_FOR_TEXT_ENCODING", "MODEL_FOR_NEXT_SENTENCE_PREDICTION"),
        "an encoder, which fills gaps or embeds text",
    ),
    (
        ("MODEL_FOR_IMAGE", "MODEL_FOR_SEMANTIC_SEG", "MODEL_FOR_ZERO_SHOT", "MODEL_FOR_OBJECT_DETECTION"),
        "a vision model",
    ),
    (("MODEL_FOR_AUDIO", "MODEL_FOR_CTC", "MODEL_FOR_TEXT_TO_"), "an audio model"),
    (
        (
            "MODEL_FOR_SEQUENCE_CLASSIFICATION",
            "MODEL_FOR_TOKEN_CLASSIFICATION",
            "MODEL_FOR_QUESTION_ANSWERING",
        ),
        "a classifier",
    ),
)
"""Beginnings of the names of tables, and what the classes in them are. The first that fits counts."""


def architecture_of(name: str, config: Mapping[str, Any]) -> str:
    """Returns the class of a causal language model.

    Args:
        name: As the user named the checkpoint.
        config: config.json.

    Raises:
        CheckpointError: it is another kind of model, or needs code of its own.
    """
    tables = _tables()
    known = tables.get(_CAUSAL, {})
    listed = config.get("architectures")
    model_type = str(config.get("model_type", ""))
    said = isinstance(listed, list) and bool(listed)
    architecture = str(listed[0]) if isinstance(listed, list) and listed else known.get(model_type, "")
    if architecture in known.values() and model_type in known and (said or _decodes(config, model_type)):
        return architecture
    auto_map = config.get("auto_map")
    if isinstance(auto_map, dict) and model_type not in tables.get("MODEL_MAPPING_NAMES", {}):
        raise CheckpointError(
            f"{name} needs Python code of its own to run, which is never executed; "
            "choose a checkpoint of an architecture that transformers has built in."
        )
    kind = _kind(config, architecture if said else "", model_type)
    raise CheckpointError(
        f"{name} is a {architecture or model_type or 'model without an architecture'}, "
        f"{kind or 'not a causal language model that transformers knows'}; "
        "choose one that writes text and only decodes, such as Qwen or Llama."
    )


def _decodes(config: Mapping[str, Any], model_type: str) -> bool:
    """Tells whether a config that lists no class means a model that reads from left to right.

    Encoders and encoder–decoders have such a class beside their usual one.
    """
    tables = _tables()
    usual = model_type in tables.get(_MASKED, {}) or model_type in tables.get(_SEQUENCES, {})
    return not usual or (bool(config.get("is_decoder")) and not config.get("is_encoder_decoder"))


def _kind(config: Mapping[str, Any], architecture: str, model_type: str) -> str:
    """Names the kind of a model that writes no text; "" if nothing tells."""
    for prefixes, kind in _KINDS:
        for table, classes in _tables().items():
            fits = architecture in classes.values() if architecture else model_type in classes
            if table.startswith(prefixes) and fits:
                return kind
    if config.get("is_encoder_decoder"):
        return "an encoder–decoder model"
    if "vision_config" in config:
        return "a vision–language or multimodal model"
    base = architecture and architecture == _tables().get("MODEL_MAPPING_NAMES", {}).get(model_type)
    return "a model without a head that predicts tokens" if base else ""


@lru_cache(maxsize=1)
def _tables() -> dict[str, dict[str, str]]:
    """Reads every table by its name, class by model type."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return {}
    source = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    found = re.findall(r"^(MODEL_\w+_NAMES) = OrderedDict\((.*?)^\)", source, re.MULTILINE | re.DOTALL)
    return {table: dict(re.findall(r'\("([\w.-]+)",\s*"(\w+)"\)', body)) for table, body in found}
