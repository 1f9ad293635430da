"""What config.json says, in both layouts, and what the flat tier leaves to transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.engine.models.architectures import UnsupportedError, flat_config, supports
from tests.engine.models.references import CASES, LONG, checkpoint, config_of

if TYPE_CHECKING:
    from pathlib import Path

QWEN2: dict[str, Any] = {  # as the hub holds Qwen2-0.5B
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 131072,
    "max_window_layers": 24,
    "model_type": "qwen2",
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 151936,
}


def test_a_real_config() -> None:
    c = flat_config(QWEN2)
    assert (c.head_dim, c.kv_heads, c.qkv_bias, c.out_bias, c.tied) == (64, 2, True, False, True)
    assert c.rope.theta == 1e6
    assert c.windows == (0,) * 24


@pytest.mark.parametrize("case", CASES)
def test_every_family_is_covered(case: str, tmp_path: Path) -> None:
    assert supports(config_of(checkpoint(tmp_path / "c", case))) is None


@pytest.mark.parametrize("case", ["llama3 rope", "linear rope", "phi3 long rope", "mistral windowed"])
def test_both_layouts_say_the_same(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = flat_config(config_of(checkpoint(tmp_path / "new", case)))
    monkeypatch.setitem(CASES, case, CASES[case] | {"layout": "old"})
    old = flat_config(config_of(checkpoint(tmp_path / "old", case)))
    # The scaling itself keeps config.json's spelling.
    assert replace(old, rope=replace(old.rope, scaling={})) == replace(
        new, rope=replace(new.rope, scaling={})
    )


def test_early_name_of_the_long_rope(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES, "su", {"arch": "phi3", "rope": {**LONG, "rope_type": "su"}, "layout": "old"})
    c = flat_config(config_of(checkpoint(tmp_path / "su", "su")))
    assert (c.rope.kind, c.rope.original) == ("longrope", 24)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not of the Llama family"),
        ({"architectures": None, "model_type": "mamba"}, "unnamed architecture"),
        ({"hidden_act": "gelu"}, "'gelu', not SiLU"),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantised"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "'ntk' is unknown"),
        ({"rope_scaling": {"type": "dynamic"}}, "dynamic rotary scaling has no factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "partial_rotary_factor": 0.5}, "0.5 of each head"),
        ({"sliding_window": 0, "use_sliding_window": True}, "window is 0"),
        ({"rope_scaling": {"rope_type": "linear"}}, "linear rotary scaling has no factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differs between layers"),
        ({"layer_types": ["linear_attention"] * 24}, "mixes layer types"),
        ({"num_key_value_heads": 3}, "do not share 3 key heads evenly"),
        ({"hidden_size": None}, "null for hidden_size"),
        ({"head_dim": None}, "null for head_dim"),
        ({"vocab_size": "many"}, "config.json cannot be read"),
    ],
)
def test_reasons(change: dict[str, Any], reason: str) -> None:
    config = QWEN2 | change
    assert reason in (supports(config) or "")
    with pytest.raises(UnsupportedError):
        flat_config(config)


def test_layer_types_choose_the_windows() -> None:
    kinds = ["full_attention", "sliding_attention"] * 12
    c = flat_config(QWEN2 | {"use_sliding_window": True, "sliding_window": 8, "layer_types": kinds})
    assert c.windows == (0, 8) * 12
