"""What config.json leaves out, states as null or says twice, read as transformers' config classes read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.models.architectures import UnsupportedError, families, flat_config
from edge_tui.engine.models.memory_estimate import estimate
from tests.engine.models.references import (
    FAMILY_CASES,
    LLAMA3,
    LONG,
    TOLERANCE,
    attention_of,
    checkpoint,
    config_of,
    deviation,
    flat,
    impose_swiglu,
    random_ids,
)
from tests.engine.random_checkpoints import ARCHITECTURES, make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LINEAR = {"rope_type": "linear", "factor": 3.0}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
ROPES: dict[str, Mapping[str, Any] | None] = {
    "plain": None,
    "linear": LINEAR,
    "dynamic": DYNAMIC,
    "yarn": YARN,
    "llama3": LLAMA3,
    "long": LONG,
}
DEFAULTS = {name: dict.fromkeys(each.nullable) | dict(each.defaults) for name, each in families().items()}
SIZES = {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"}
"""Without these no tensor fits."""
ALWAYS = (
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "original_max_position_embeddings",
)
IDS = random_ids(1, 40)


def rewrite(path: Path, change: Mapping[str, Any]) -> None:
    """Changes config.json; `...` takes a key out."""
    config = {k: v for k, v in (config_of(path) | dict(change)).items() if v is not ...}
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")


def wanted(path: Path) -> tuple[torch.Tensor | None, set[str]]:
    """transformers' logits, None where it refuses or lacks tensors; and the names of tensors left unread."""
    import transformers

    transformers.logging.set_verbosity_error()
    attention = attention_of(config_of(path))
    try:
        module, report = transformers.AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
        )
        impose_swiglu(module, config_of(path))
        with torch.inference_mode():
            logits = None if report["missing_keys"] else module.eval()(IDS).logits
    except Exception:  # whatever a config class raises
        return None, set()
    return logits, set(report["unexpected_keys"])


def compare(path: Path, what: object) -> bool:
    """Holds the flat decoder against transformers, unless it leaves the config to transformers itself.

    Tensors that transformers leaves unread under a config are refused, by the name of one. A null that one of
    its classes stumbles over says as much as a key that is missing.
    """
    try:
        flat_config(config_of(path))
    except UnsupportedError:
        return False
    theirs, unread = wanted(path)
    if theirs is not None and unread:
        with pytest.raises(WeightsError, match=r"^The checkpoint has a tensor \S+, which no ") as refused:
            flat(path)
        assert str(refused.value).split()[5].rstrip(",") in unread, what
        return True
    if theirs is None:
        try:
            flat(path)
        except WeightsError:
            return False
        whole = config_of(path)
        rewrite(path, {key: ... for key, value in whole.items() if value is None})
        theirs, _ = wanted(path)
        rewrite(path, whole)
        assert theirs is not None, f"transformers refuses {what}"
    try:
        model = flat(path)
    except WeightsError as error:
        pytest.fail(f"{what}: {error}")
    got = model.forward(model.open(1, IDS.shape[1]), IDS).logits
    assert deviation(got, theirs) < TOLERANCE, what
    return True


@pytest.mark.parametrize("family", DEFAULTS)
def test_defaults_are_those_of_the_config_classes(family: str) -> None:
    check_defaults(family)


def check_defaults(family: str) -> None:
    from transformers import AutoConfig

    theirs, own = AutoConfig.for_model(family), families()[family]
    fields = type(theirs).__dataclass_fields__
    stated = dict.fromkeys(own.nullable) | dict(own.defaults)
    if family == "gpt_oss" and "swiglu_alpha" not in fields:  # transformers 5.17 has them in its code
        stated = {field: value for field, value in stated.items() if not field.startswith("swiglu_")}
    assert {field: fields[field].default for field in stated} == stated
    if own.rotary_layers == "local" and isinstance(theirs.default_theta, dict):
        assert theirs.default_theta == {"global": own.theta, "local": own.local_theta}
    else:
        assert theirs.default_theta == own.theta


@pytest.mark.parametrize(
    ("family", "layout"),
    [("qwen3", "old"), *(pytest.param(family, "new", marks=pytest.mark.proof) for family in ARCHITECTURES)],
)
def test_every_key_may_be_missing_or_null(family: str, layout: str, tmp_path: Path) -> None:
    extra = {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1}
    path = make_checkpoint(tmp_path / family, family, layout=layout, kv_heads=4, extra=extra)
    whole = config_of(path)
    compared = 0
    every = (DEFAULTS[family].keys() - SIZES) | set(ALWAYS)
    for key in sorted(every):
        for value in (..., None):
            rewrite(path, {key: value})
            compared += compare(path, (key, value))
            (path / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    assert compared > len(every)


@pytest.mark.proof
@pytest.mark.parametrize("case", FAMILY_CASES)
def test_every_key_of_the_other_families_may_be_missing_or_null(case: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", case)
    whole = config_of(path)
    own = families()[FAMILY_CASES[case][0]]
    every = (own.known - SIZES) | {*ALWAYS, "rope_local_base_freq", "sliding_window_pattern"}
    compared = 0
    for key in sorted(every):
        for value in (..., None):
            rewrite(path, {key: value})
            compared += compare(path, (key, value))
            (path / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    assert compared > len(every) / 2


OLD: dict[str, dict[str, Any]] = {
    "gemma2": {"rope_theta": 100.0},
    "gemma3_text": {
        "rope_theta": 100.0,
        "rope_local_base_freq": 40.0,
        "layer_types": ...,
        "sliding_window_pattern": 2,
    },
    "gemma3 scaled": {
        "rope_theta": 100.0,
        "rope_local_base_freq": 40.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "olmo3": {"rope_theta": 500000.0, "rope_scaling": YARN},
    "cohere2": {"rope_theta": 100.0, "layer_types": ..., "sliding_window_pattern": 2},
    "smollm3": {"rope_theta": 100.0},
    "stablelm": {"rope_theta": 100.0, "partial_rotary_factor": 0.5},
    "phi": {"rope_theta": 100.0, "partial_rotary_factor": 0.75},
    "glm4": {"rope_theta": 100.0, "partial_rotary_factor": 0.5},
    "gpt_neox": {"rotary_emb_base": 100.0, "rotary_pct": 0.5},
    "granite": {"rope_theta": 100.0},
    "starcoder2": {"rope_theta": 100.0, "sliding_window": 7},
    "falcon": {"rope_theta": 100.0},
}


@pytest.mark.parametrize("case", OLD)
def test_rotary_settings_where_they_lay_before(case: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", "gemma3_text" if case == "gemma3 scaled" else case)
    rewrite(path, {"rope_parameters": ...} | OLD[case])
    assert compare(path, case)


@pytest.mark.proof
@pytest.mark.parametrize("name", ROPES)
@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_every_rotary_key_may_be_missing_or_null(family: str, name: str, tmp_path: Path) -> None:
    """In both places, with a share of each head to rotate and without."""
    path = make_checkpoint(tmp_path / "m", family, kv_heads=4, context=128)
    scaling = dict(ROPES[name] or {"rope_type": "default"})
    shared = {"rope_theta": 100.0, "original_max_position_embeddings": ...}
    compared = 0
    for place, other in (("rope_parameters", "rope_scaling"), ("rope_scaling", "rope_parameters")):
        for key in (*scaling, "rope_theta", "original_max_position_embeddings", "attention_factor", "type"):
            for value in (..., None, 24):
                changed = {k: v for k, v in {**scaling, key: value}.items() if v is not ...}
                rewrite(path, {**shared, place: changed, other: ...})
                compared += compare(path, (place, key, value))
        for share in (0.5, 1.0):
            rewrite(path, {**shared, place: scaling, other: ..., "partial_rotary_factor": share})
            compared += compare(path, (place, "partial_rotary_factor", share))
            rewrite(path, {"partial_rotary_factor": ...})
    assert compared


@pytest.mark.parametrize("family", ["llama", "phi3"])
def test_only_a_family_that_has_it_rotates_a_part(family: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", family, kv_heads=4)
    for layout in ({"partial_rotary_factor": 0.5}, {"rope_parameters": {"partial_rotary_factor": 0.5}}):
        rewrite(path, layout)
        assert compare(path, layout)
        rewrite(path, {"partial_rotary_factor": ...})


def test_a_window_that_is_not_said_is_the_class_default(tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "m", "mistral")
    assert set(flat_config(config_of(path)).windows) == {0}
    rewrite(path, {"sliding_window": ...})
    assert set(flat_config(config_of(path)).windows) == {4096}


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("stored", ["both", "equal", "head", "embedding"])
def test_what_is_stored_counts_for_more_than_a_config_that_ties(
    stored: str, tie: bool, tmp_path: Path
) -> None:
    path = make_checkpoint(tmp_path / "m", "qwen2")
    rewrite(path, {"tie_word_embeddings": tie})
    tensors = load_file(path / "model.safetensors")
    if stored == "equal":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    if stored in ("head", "embedding"):
        del tensors[{"head": "model.embed_tokens.weight", "embedding": "lm_head.weight"}[stored]]
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    assert compare(path, stored) == (tie or stored in ("both", "equal"))
    needed = estimate(open_checkpoint(str(path)), "float32", 64, 1, "cpu")
    if tie or stored in ("both", "equal"):
        held = flat(path).info.weight_bytes
        again = 4 * tensors["lm_head.weight"].numel() if tie and stored == "equal" else 0
        assert needed.weights == held + again
