"""What differs between layers, read from config.json as published files and as transformers 5.23 write it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models.architectures import UnsupportedError, flat_config
from edge_tui.engine.models.memory_estimate import estimate
from tests.engine.models.references import checkpoint, config_of, flat, random_ids
from tests.engine.random_checkpoints import save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

GEMMA: dict[str, Any] = {
    "architectures": ["Gemma4ForCausalLM"],
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "hidden_size_per_layer_input": 0,
}


def shapes(**stated: Any) -> list[tuple[int, int, int]]:
    each = flat_config(GEMMA | stated).shapes
    return [(shape.source, shape.kv_heads, shape.head_dim) for shape in each]


def test_full_layers_have_heads_of_their_own() -> None:
    usual = (0, 4, 256), (1, 4, 512), (2, 4, 256), (3, 4, 512)
    assert shapes() == list(usual)
    assert shapes(num_global_key_value_heads=2) == list(usual), "the class reads it with keys as values alone"
    own = shapes(num_global_key_value_heads=2, attention_k_eq_v=True, global_head_dim=384)
    assert own == [(0, 4, 256), (1, 2, 384), (2, 4, 256), (3, 2, 384)]


def test_what_is_said_by_layer_counts_for_more() -> None:
    said = {"1": {"head_dim": 384, "num_key_value_heads": 1}, "3": {"head_dim": 384}}
    own = shapes(per_layer_config=said, global_head_dim=128)
    assert own == [(0, 4, 256), (1, 1, 384), (2, 4, 256), (3, 4, 384)]


@pytest.mark.parametrize("kinds", [None, ["full_attention", "sliding_attention"]])
def test_the_last_layer_is_full(kinds: list[str] | None) -> None:
    layers = 8 if kinds is None else 2
    windows = flat_config(GEMMA | {"num_hidden_layers": layers, "layer_types": kinds}).windows
    assert [i for i, window in enumerate(windows) if not window] == ([5, 7] if kinds is None else [0, 1])


def test_layers_share_with_the_last_of_their_kind() -> None:
    own = shapes(num_hidden_layers=8, layer_types=GEMMA["layer_types"] * 2, num_kv_shared_layers=4)
    assert [source for source, *_ in own] == [0, 1, 2, 3, 2, 3, 2, 3]


@pytest.mark.parametrize(
    ("stated", "why"),
    [
        ({"num_kv_shared_layers": 3}, "no earlier one"),
        ({"num_kv_shared_layers": 4}, "no keys of their own"),
        ({"per_layer_config": {"3": {"head_dim": 384}}}, "several widths"),
        ({"per_layer_config": {"2": {"head_dim": 384}}}, "several widths"),
        (
            {"num_kv_shared_layers": 2, "per_layer_config": {"3": {"num_key_value_heads": 2}}},
            "other heads than layer 1",
        ),
        ({"per_layer_config": {"1": {"sliding_window": 3}}}, "sliding_window of its own"),
        ({"enable_moe_block": True}, "enable_moe_block"),
    ],
)
def test_contradictions_are_refused(stated: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedError, match=why):
        flat_config(GEMMA | stated)


def test_the_text_of_a_model_that_sees_decodes_alone(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", "gemma4 E")
    save_tokenizer(path)
    before, ids, text = flat(path), random_ids(1, 9), config_of(path)
    whole = {"architectures": ["Gemma4ForConditionalGeneration"], "model_type": "gemma4", "text_config": text}
    (path / "config.json").write_text(json.dumps(whole), encoding="utf-8")
    tensors = load_file(path / "model.safetensors")
    nested = {name.replace("model.", "model.language_model.", 1): tensor for name, tensor in tensors.items()}
    nested["model.vision_tower.patches.weight"] = torch.zeros(8, 8)
    save_file(nested, path / "model.safetensors", metadata={"format": "pt"})
    after = flat(path)
    logits = [model.forward(model.open(1, 16), ids).logits for model in (before, after)]
    assert torch.equal(*logits)
    assert after.info.parameters == before.info.parameters
    assert estimate(open_checkpoint(str(path)), "float32", 64, 1, "cpu").weights == after.info.weight_bytes


def test_keys_that_no_layer_uses_are_not_read(tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", "gemma4 E")
    save_tokenizer(path)
    before, ids = flat(path), random_ids(1, 9)
    tensors = load_file(path / "model.safetensors")
    for part in ("k_proj", "v_proj", "k_norm"):
        name = f"model.layers.{{}}.self_attn.{part}.weight"
        tensors[name.format(2)] = tensors[name.format(0)].clone()
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    after = flat(path)
    logits = [model.forward(model.open(1, 16), ids).logits for model in (before, after)]
    assert torch.equal(*logits)
    assert estimate(open_checkpoint(str(path)), "float32", 64, 1, "cpu").weights == after.info.weight_bytes
