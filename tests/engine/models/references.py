"""Checkpoints of every family, and what transformers makes of them in float32."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.checkpoints.checkpoint import Checkpoint
from edge_tui.engine.models.loading import load_flat
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from edge_tui.engine.models.flat import FlatModel

TOLERANCE = 1e-4
"""Largest deviation of a float32 logit, relative to the largest logit."""
LONG: dict[str, Any] = {
    "rope_type": "longrope",
    "short_factor": [1.0 + 0.05 * i for i in range(8)],
    "long_factor": [1.5 + 0.6 * i for i in range(8)],
    "original_max_position_embeddings": 24,
}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CASES: dict[str, dict[str, Any]] = {
    "qwen2": {"arch": "qwen2", "shards": 2},
    "qwen2 old, tied": {"arch": "qwen2", "layout": "old", "tie": True},
    "qwen2 windowed above": {
        "arch": "qwen2",
        "extra": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    },
    "qwen3": {"arch": "qwen3", "head_dim": 32},
    "qwen3 biased": {"arch": "qwen3", "extra": {"attention_bias": True}, "kv_heads": 1},
    "llama": {"arch": "llama"},
    "llama old, tied": {"arch": "llama", "layout": "old", "tie": True, "kv_heads": 4, "shards": 3},
    "llama biased": {
        "arch": "llama",
        "head_dim": 24,
        "extra": {"attention_bias": True, "mlp_bias": True},
    },
    "llama3 rope": {"arch": "llama", "rope": LLAMA3},
    "llama3 rope old": {"arch": "llama", "rope": LLAMA3, "layout": "old"},
    "linear rope": {"arch": "llama", "rope": {"rope_type": "linear", "factor": 3.0}},
    "linear rope old": {"arch": "qwen2", "rope": {"rope_type": "linear", "factor": 3.0}, "layout": "old"},
    "yarn rope": {
        "arch": "qwen2",
        "rope": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
    },
    "mistral": {"arch": "mistral"},
    "mistral windowed": {"arch": "mistral", "extra": {"sliding_window": 7}},
    "phi3": {"arch": "phi3", "kv_heads": 4},
    "phi3 windowed": {"arch": "phi3", "extra": {"sliding_window": 11}},
    "phi3 partial": {"arch": "phi3", "extra": {"partial_rotary_factor": 0.5}, "layout": "old"},
    "phi3 long rope": {"arch": "phi3", "rope": LONG},
    "phi3 long rope old": {"arch": "phi3", "rope": LONG, "layout": "old"},
}
_KINDS = ["sliding_attention", "full_attention"]
_GEMMA4: dict[str, Any] = {
    "layer_types": _KINDS,
    "global_head_dim": 16,
    "attention_k_eq_v": True,
    "num_global_key_value_heads": 1,
    "hidden_size_per_layer_input": 0,
    "final_logit_softcapping": 3.0,
}
"""The dense 31B in small."""
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 24},
    "gemma3_text": {"sliding_window_pattern": 2, "query_pre_attn_scalar": 24},
    "olmo2": {},
    "smollm3": {"no_rope_layers": [1, 0]},
    "granite": {
        "embedding_multiplier": 3.0,
        "attention_multiplier": 0.2,
        "residual_multiplier": 0.4,
        "logits_scaling": 4.0,
    },
    "glm4": {},
    "cohere": {"use_qk_norm": True},
    "stablelm": {"use_qkv_bias": True, "use_parallel_residual": True},
    "starcoder2": {},
    "phi": {},
    "gpt_neox": {},
    "gpt2": {},
    "opt": {},
    "falcon": {},
    "gemma": {},
    "olmo3": {"layer_types": ["sliding_attention", "full_attention"]},
    "cohere2": {"layer_types": ["sliding_attention", "full_attention"]},
    "glm": {},
    "seed_oss": {"attention_out_bias": True},
    "ernie4_5": {"use_bias": True},
    "arcee": {},
    "nemotron": {},
    "mixtral": {"num_local_experts": 5},
    "qwen2_moe": {"mlp_only_layers": [0], "moe_intermediate_size": 24},
    "qwen3_moe": {"norm_topk_prob": True, "num_experts": 6, "num_experts_per_tok": 3},
    "olmoe": {"num_key_value_heads": 4},
    "granitemoe": {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 4.0},
    "gpt_oss": {"swiglu_limit": 1.5, "swiglu_alpha": 1.3, "sliding_window": 9},
    "gemma4_text": _GEMMA4,
    "gemma4_unified_text": {
        **_GEMMA4,
        "hidden_size_per_layer_input": ...,
        "num_hidden_layers": 4,
        "layer_types": 2 * _KINDS,
        "num_kv_shared_layers": 2,
    },
}
"""Random models of the families that transformers makes."""
_NEW = {"new_decoder_architecture": True, "num_kv_heads": 2}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "stablelm 12B": ("stablelm", {"qk_layernorm": True, "use_parallel_residual": True}),
    "falcon 40B": ("falcon", _NEW),
    "falcon 11B": ("falcon", {**_NEW, "num_ln_in_parallel_attn": 1, "tie_word_embeddings": False}),
    "falcon RW": ("falcon", {"alibi": True, "multi_query": False, "parallel_attn": False, "bias": True}),
    "gemma4 E": (
        "gemma4_text",
        {
            **_GEMMA4,
            "num_hidden_layers": 4,
            "layer_types": 2 * _KINDS,
            "attention_k_eq_v": False,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 8,
        },
    ),
    "gemma4 sources": (
        "gemma4_text",
        {
            **_GEMMA4,
            "num_hidden_layers": 6,
            "layer_types": 3 * _KINDS,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
        },
    ),
    "opt without final norm": ("opt", {"_remove_final_layer_norm": True}),
    "opt 350M": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 16}),
}
"""Random models of the variants of a family."""
FAMILY_CASES = {kind: (kind, own) for kind, own in FAMILIES.items()} | VARIANTS
LLAMA_CASES = [
    case
    if "old" not in case or "tied" in case
    else pytest.param(case, marks=pytest.mark.proof)  # a layout of config.json, which other tests compare
    for case in CASES
]
"""Cases of the families that the fused steps take."""
SOME_CASES = [*LLAMA_CASES, *FAMILY_CASES]


def checkpoint(folder: Path, case: str) -> Path:
    if case in CASES:
        return make_checkpoint(folder, **CASES[case])
    kind, own = FAMILY_CASES[case]
    return make_tiny(folder, kind, **{"vocab_size": 320, "rope_theta": 100.0} | own)


def config_of(path: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    return config


def source(path: Path) -> Checkpoint:
    """A folder that need not have a tokenizer."""
    return Checkpoint(path.name, path, config_of(path), "", {})


def flat(path: Path, **changes: Any) -> FlatModel:
    options: dict[str, Any] = {
        "device": "cpu",
        "dtype": torch.float32,
        "precision": "float32",
    }
    return load_flat(source(path), **(options | changes))


def attention_of(config: Mapping[str, Any]) -> str:
    """transformers' attention to compare a config with: eager, where that is right.

    Falcon's eager attention adds alibi twice (transformers 5.23), its other one, the default, once.
    """
    return "sdpa" if config.get("alibi") else "eager"


def reference(path: Path) -> Any:
    """transformers' own model, in the attention that is right, float32."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = config_of(path)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation=attention_of(config)
    ).eval()
    impose_swiglu(model, config)
    return model


def impose_swiglu(model: Any, config: Mapping[str, Any]) -> None:
    """Gives GPT-OSS' experts the numbers of a config; transformers 5.17 has both in its code."""
    for experts in (each for each in model.modules() if hasattr(each, "alpha") and hasattr(each, "limit")):
        experts.alpha = config.get("swiglu_alpha") or experts.alpha
        experts.limit = config.get("swiglu_limit") or experts.limit


def random_ids(*shape: int, vocab: int = 320, seed: int = 7) -> Tensor:
    return torch.randint(3, vocab, shape, generator=torch.Generator().manual_seed(seed))


def deviation(got: Tensor, wanted: Tensor) -> float:
    """Largest difference, relative to the largest wanted value."""
    assert got.shape == wanted.shape
    return float((got.float() - wanted.float()).abs().max() / wanted.float().abs().max())


def one_by_one(model: Any, ctx: Any, ids: Tensor) -> Tensor:
    """Logits `[R, K, V]` of ids fed singly."""
    return torch.cat([model.forward(ctx, ids[:, i : i + 1]).logits for i in range(ids.shape[1])], 1)
