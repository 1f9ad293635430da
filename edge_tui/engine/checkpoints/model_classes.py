"""Reads transformers' tables of model classes from its source, and says what a class is that writes no text.

Importing the tables would take seconds and load torch.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.weight_files import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {
    "IMAGE_TEXT_TO_TEXT|MULTIMODAL_LM": "a vision–language or multimodal model",
    "SEQ_TO_SEQ_CAUSAL_LM|SPEECH_SEQ_2_SEQ": "an encoder–decoder model",
    "MASKED_LM|TEXT_ENCODING|NEXT_SENTENCE_PREDICTION": "an encoder, which fills gaps or embeds text",
    "IMAGE|SEMANTIC_SEG|ZERO_SHOT|OBJECT_DETECTION": "a vision model",
    "AUDIO|CTC|TEXT_TO_": "an audio model",
    "(SEQUENCE|TOKEN)_CLASSIFICATION|QUESTION_ANSWERING": "a classifier",
}
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
    causal = tables["CAUSAL_LM"]
    listed = config.get("architectures")
    model_type = str(config.get("model_type", ""))
    stated = str(listed[0]) if isinstance(listed, list) and listed else ""
    architecture = stated or causal.get(model_type, "")
    if architecture in causal.values() and model_type in causal and (stated or _decodes(config, model_type)):
        return architecture
    auto_map = config.get("auto_map")
    if isinstance(auto_map, dict) and model_type not in tables["MODEL"]:
        raise CheckpointError(
            f"{name} needs Python code of its own to run, which is never executed; "
            "choose a checkpoint of an architecture that transformers has built in."
        )
    kind = _kind(config, stated, model_type)
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
    usual = model_type in tables["MASKED_LM"] or model_type in tables["SEQ_TO_SEQ_CAUSAL_LM"]
    return not usual or (bool(config.get("is_decoder")) and not config.get("is_encoder_decoder"))


def _kind(config: Mapping[str, Any], architecture: str, model_type: str) -> str:
    """Names the kind of a model that writes no text; "" if nothing tells."""
    for tables, kind in _KINDS.items():
        for table, classes in _tables().items():
            fits = architecture in classes.values() if architecture else model_type in classes
            if fits and re.match(tables, table):
                return kind
    if config.get("is_encoder_decoder"):
        return "an encoder–decoder model"
    if "vision_config" in config:
        return "a vision–language or multimodal model"
    base = _tables()["MODEL"].get(model_type)
    return "a model without a head that predicts tokens" if architecture and architecture == base else ""


@lru_cache(maxsize=1)
def _tables() -> Mapping[str, Mapping[str, str]]:
    """Reads the tables, class by model type: "CAUSAL_LM" and others, and "MODEL" with the base classes."""
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return defaultdict(dict)
    source = (Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py").read_text(encoding="utf-8")
    table = re.compile(
        r"^(?:MODEL_FOR_)?(\w+)_MAPPING_NAMES = OrderedDict\((.*?)^\)", re.MULTILINE | re.DOTALL
    )
    entry = re.compile(r'\("([\w.-]+)",\s*"(\w+)"\)')
    return defaultdict(dict, {name: dict(entry.findall(body)) for name, body in table.findall(source)})
