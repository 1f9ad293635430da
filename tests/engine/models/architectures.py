"""Tiny random checkpoints of every causal language model that transformers has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

_SIZES: dict[str, Any] = {
    "vocab_size": 96,
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "embed_dim", "lru_width", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_key_value_heads", "num_global_key_value_heads", "index_n_heads"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk", "moe_k"), 2),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "index_topk"), 64),
    **dict.fromkeys(("sliding_window", "attention_window"), 7),
    **dict.fromkeys(("head_dim", "v_head_dim", "qk_head_dim", "kv_lora_rank", "q_lora_rank"), 8),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "rotary_dim"), 4),
    **dict.fromkeys(("state_size", "mamba_d_state", "mamba_n_heads", "mamba_d_head"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "index_head_dim"), 8),
    **dict.fromkeys(("global_head_dim", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("mamba_n_groups", "n_group", "topk_group", "first_k_dense_replace"), 1),
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "decoder_attention_heads": 4,
    **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0),
}
_OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_hidden_layers": 8},
    "bamba": {"num_hidden_layers": 3, "attn_layer_indices": [1]},
    "dots1": {"n_shared_experts": 1},
    "dots3_note_text": {"num_key_value_heads": 4},
    "falcon_h1": {"mamba_d_ssm": 64},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
        "altup_num_inputs": 2,
        "laurel_rank": 8,
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"num_hidden_layers": 3, "layer_types": ["mamba", "attention", "mamba"]},
    "jamba": {
        "num_hidden_layers": 3,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"num_key_value_heads": 4, "head_dim": 4},
    "mamba2": {"num_heads": 8},
    "qwen4_exp_text": {
        "num_hidden_layers": 4,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 1,
        "output_gate_type": "sigmoid",
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "rwkv": {"attention_hidden_size": 32, "intermediate_size": 128},
    "xmod": {"default_language": "en_XX"},
    "xlstm": {"num_heads": 4, "hidden_size": 64, "embedding_dim": 64},
    "zaya": {"num_experts_per_tok": 1},
    "zamba": {"num_hidden_layers": 3, "layer_types": ["mamba", "hybrid", "mamba"]},
    "zamba2": {
        "num_hidden_layers": 4,
        "layer_types": ["mamba", "hybrid", "mamba", "hybrid"],
        "hybrid_layer_ids": [1, 3],
        "num_mem_blocks": 1,
        "mamba_headdim": 8,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "head_dim": ...,
        "attention_head_dim": 16,
    },
    **{
        kind: {"num_hidden_layers": 4}
        for kind in ("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "kimi_linear")
    },
    **{
        kind: {"num_key_value_heads": 4, "head_dim": ...}
        for kind in (
            *("deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "minicpm3"),
            *("axk1", "axk2", "youtu"),
        )
    },
}
"""What a kind needs beside or instead of `_SIZES`; `...` leaves an entry to its class."""
_LARGEST = 3_000_000
"""Parameters up to which a model counts as tiny: others have parts that no entry above makes small."""


class NotTiny(Exception):
    """The table above does not make this kind small."""


def make_tiny(folder: Path, kind: str, std: float = 0.2, **own: Any) -> Path:
    """Saves a random checkpoint of a model type, every parameter off its initial value; `own` sizes win.

    Raises:
        NotTiny: it would be large, its class takes other sizes, or this transformers does not know it.
    """
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if kind not in CONFIG_MAPPING:
        raise NotTiny(f"transformers {transformers.__version__} does not know {kind}")
    made = CONFIG_MAPPING[kind]
    aliases = getattr(made, "attribute_map", {})
    try:
        known = made().to_dict().keys() | aliases.keys()
        sizes = {k: v for k, v in _SIZES.items() if k in known} | _OWN.get(kind, {}) | own
        if "vocab_size_per_layer_input" in known:
            sizes["vocab_size_per_layer_input"] = sizes["vocab_size"]
        sizes = {k: v for k, v in sizes.items() if v is not ... and aliases.get(k) not in sizes}
        config = AutoConfig.for_model(kind, **sizes)
        with torch.device("meta"):
            meta = AutoModelForCausalLM.from_config(config)
        if sum(p.numel() for p in meta.parameters()) > _LARGEST:
            raise NotTiny(kind)
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise NotTiny(f"{kind}: {error}") from error
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "A_log" not in name and parameter.is_floating_point():
                parameter.add_(torch.randn_like(parameter) * std)
        for name, buffer in module.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.add_(torch.randn_like(buffer) * std)
    module.save_pretrained(folder)
    return folder
