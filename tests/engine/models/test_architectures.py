"""What config.json says, in both layouts, and what the flat tier leaves to transformers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.models import feed_forward
from edge_tui.engine.models.architectures import UnsupportedError, families, flat_config, supports
from edge_tui.engine.models.features import ACTIVATIONS
from edge_tui.engine.models.layer_shapes import LayerShape
from edge_tui.engine.models.mixture import Mixture
from tests.engine.models.references import CASES, LONG, checkpoint, config_of, flat

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
        ({"architectures": ["BloomForCausalLM"]}, "BloomForCausalLM is not of the flat decoder's families"),
        ({"architectures": None, "model_type": "mamba"}, "unnamed architecture"),
        ({"hidden_act": "mish"}, "activation 'mish' is unknown"),
        ({"quantization_config": {"quant_method": "awq"}}, "already quantised"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "'ntk' is unknown"),
        ({"rope_scaling": {"type": "dynamic"}}, "dynamic rotary scaling has no factor"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "partial_rotary_factor": 0.5}, "0.5 of each head"),
        ({"sliding_window": 0, "use_sliding_window": True}, "window is 0"),
        ({"rope_scaling": {"rope_type": "linear"}}, "linear rotary scaling has no factor"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1.0}}}, "differs between layers"),
        ({"layer_types": ["linear_attention"] * 24}, "mixes layer types"),
        ({"is_causal": False}, "its attention looks forward"),
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


def test_a_family_without_windows_has_no_layer_types_but_full_ones() -> None:
    llama = {"architectures": ["LlamaForCausalLM"], "num_hidden_layers": 2}
    assert supports(llama | {"layer_types": ["full_attention"] * 2}) is None
    for types in (["sliding_attention", "full_attention"], ["full_attention"], ["linear_attention"] * 2):
        reason = supports(llama | {"layer_types": types, "sliding_window": 8})
        assert "which its family does not have" in (reason or "")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_those_of_transformers(name: str) -> None:
    from transformers.activations import ACT2FN

    x = torch.linspace(-4, 4, 99)
    torch.testing.assert_close(
        feed_forward.ACTIVATIONS[ACTIVATIONS[name]](x), ACT2FN[name](x), rtol=0, atol=2e-6
    )


DISGUISES: dict[str, dict[str, Any]] = {
    "experts": {"num_experts": 8},
    "alibi": {"alibi": True},
    "a cap on scores": {"attn_logit_softcapping": 50.0},
    "a residual multiplier": {"residual_multiplier": 0.22},
    "a scale of logits": {"logit_scale": 0.06},
    "parallel layers": {"use_parallel_residual": True},
    "clipped queries": {"clip_qkv": 8.0},
    "norms of queries and keys": {"qk_layernorm": True},
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_known_name_with_another_familys_feature_is_not_decoded(name: str) -> None:
    (key,) = DISGUISES[name]
    assert f"its config.json has {key}, which Qwen2ForCausalLM does not know" in (
        supports(QWEN2 | DISGUISES[name]) or ""
    )


@pytest.mark.parametrize(
    ("family", "change"),
    [
        ("falcon", {"alibi": "once"}),
        ("falcon", {"num_ln_in_parallel_attn": 2}),
        ("falcon", {"new_decoder_architecture": True, "num_ln_in_parallel_attn": 3}),
        ("falcon", {"new_decoder_architecture": True, "parallel_attn": False}),
        ("falcon", {"multi_query": False, "num_kv_heads": 2}),
        ("opt", {"layer_norm_elementwise_affine": False}),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}),
        ("phi", {"qk_layernorm": True}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
        ("gemma3_text", {"attn_logit_softcapping": 50.0}),
    ],
)
def test_features_of_the_family_that_are_not_covered_are_refused(family: str, change: dict[str, Any]) -> None:
    *_, key = change
    config = {"architectures": [families()[family].architecture], "hidden_size": 32, "num_attention_heads": 4}
    assert f"its {key} is" in (supports(config | change) or "")


IN_A_LAYER = "self_attn.q_norm.weight", "self_attn.sinks", "mlp.router.weight"


@pytest.mark.parametrize(
    "name",
    [*(f"model.layers.1.{each}" for each in IN_A_LAYER), "model.layers.2.mlp.up_proj.weight", "lm_head.bias"],
)
def test_a_file_with_another_models_tensors_is_refused(name: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", "llama")
    tensors = load_file(path / "model.safetensors") | {name: torch.ones(4)}
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"{name}, which no LlamaForCausalLM of 2 layers has"):
        flat(path)


FUSED = {"qwen2", "qwen3", "llama", "mistral", "phi3", "glm", "ernie4_5", "seed_oss"}


@pytest.mark.parametrize("case", sorted(FUSED))
def test_the_fused_steps_take_what_only_the_file_tells_from_llama(case: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", case)
    assert flat_config(config_of(path)).is_fusible
    assert flat(path).fused is not None


FUSED_ON_A_GPU = {
    *("mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "olmoe", "granitemoe"),
    *("gemma", "gemma2", "gemma3_text", "glm4", "granite", "olmo2", "olmo3", "smollm3"),
}


@pytest.mark.parametrize("family", sorted(FUSED_ON_A_GPU))
def test_a_gpus_fused_step_takes_more(family: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", family)
    assert flat_config(config_of(path)).is_fusible
    assert flat(path).fused is None, "a CPU's does not"


@pytest.mark.parametrize("family", sorted(families().keys() - FUSED - FUSED_ON_A_GPU))
def test_the_fused_steps_leave_what_they_do_not_compute(family: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", family)
    assert not flat_config(config_of(path)).is_fusible
    assert flat(path).fused is None


@pytest.mark.parametrize(
    "change",
    [
        {"norm": "layer"},
        {"norm_place": "sum"},
        {"norm_place": "after", "residual_scale": 0.5},
        {"norm_place": "both", "mixture": Mixture(4, 2, 16, (True,))},
        {"final_norm": False},
        {"parallel": True},
        {"gated": False},
        {"alibi": True},
        {"embedding_width": 16},
        {"positions": 64},
        {"shapes": (LayerShape(0, 1, 8, 16),)},
        {"value_norm": True},
        {"layer_scale": True},
        {"per_layer_width": 8},
    ],
    ids=str,
)
def test_a_gpus_fused_step_leaves_a_model_with_one_feature_that_it_does_not_compute(
    change: dict[str, Any], tmp_path: Path
) -> None:
    config = flat_config(config_of(checkpoint(tmp_path / "m", "llama")))
    assert config.is_fusible
    assert not replace(config, features=replace(config.features, **change)).is_fusible
