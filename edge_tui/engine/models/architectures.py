"""From config.json to the few numbers the flat decoder needs; what it does not cover gets a reason.

Checkpoints come in two layouts: since transformers 5 rotary settings lie in `rope_parameters` and the
dtype in `dtype`; most of the hub has `rope_theta` with `rope_scaling` and `torch_dtype`. Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge_tui.engine.models.rope import KINDS, RopeConfig

FAMILIES = {
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Phi3ForCausalLM": "phi3",
}
"""Architectures of the flat tier and their families."""

Config = Mapping[str, Any]


class UnsupportedError(ValueError):
    """The flat decoder does not cover this config; the message is the reason, as one clause."""


@dataclass(frozen=True, slots=True)
class FlatConfig:
    """A decoder of the Llama family in numbers.

    Attributes:
        architecture: As in config.json.
        vocab: Rows of the embedding.
        hidden: Width of the residual stream.
        layers: Number of decoder layers.
        heads: Query heads.
        kv_heads: Key and value heads; `heads` is a multiple.
        head_dim: Width of a head.
        intermediate: Width of the gated feed-forward layer.
        context: Most positions that the model was made for.
        eps: Added to the mean square in every norm.
        rope: Rotary position embedding.
        windows: Each layer's attention window in positions, the current one included; 0 sees everything.
        qkv_bias: Whether queries, keys and values have a bias.
        out_bias: Whether the attention's output has one.
        mlp_bias: Whether the feed-forward layer has biases.
        qk_norm: Whether each head's query and key are normalised before rotation.
        fused: Whether the checkpoint stores `qkv_proj` and `gate_up_proj` in one piece each.
        tied: Whether the head is the embedding.
    """

    architecture: str
    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    context: int
    eps: float
    rope: RopeConfig
    windows: tuple[int, ...]
    qkv_bias: bool
    out_bias: bool
    mlp_bias: bool
    qk_norm: bool
    fused: bool
    tied: bool


def supports(config: Config) -> str | None:
    """Whether the flat decoder covers a config.json: None if so, else the reason as one clause."""
    try:
        flat_config(config)
    except UnsupportedError as reason:
        return str(reason)
    return None


def flat_config(config: Config) -> FlatConfig:
    """Reads a config.json.

    Raises:
        UnsupportedError: the flat decoder does not cover it.
    """
    architecture = architecture_of(config)
    family = FAMILIES.get(architecture)
    if family is None:
        raise UnsupportedError(f"{architecture or 'an unnamed architecture'} is not of the Llama family")
    if config.get("quantization_config"):
        raise UnsupportedError("the checkpoint is already quantised")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise UnsupportedError(f"its activation is {config['hidden_act']!r}, not SiLU")
    try:
        return _read(config, architecture, family)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, UnsupportedError):
            raise
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise UnsupportedError(f"its config.json {what}") from error


def architecture_of(config: Config) -> str:
    """The model class that config.json names, or the one its `model_type` implies; "" for neither."""
    named = config.get("architectures")
    if isinstance(named, list | tuple) and named and isinstance(named[0], str):
        return named[0]
    by_family = {family: name for name, family in FAMILIES.items()}
    return by_family.get(str(config.get("model_type", "")), "")


def _read(config: Config, architecture: str, family: str) -> FlatConfig:
    hidden, heads, layers = (
        int(config[k]) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    kv_heads = int(config.get("num_key_value_heads") or heads)
    default_dim = 128 if family == "qwen3" else hidden // heads
    head_dim = int(config.get("head_dim") or default_dim)
    if heads % kv_heads:
        raise UnsupportedError(f"its {heads} query heads do not share {kv_heads} key heads evenly")
    attention_bias = family in ("llama", "qwen3") and bool(config.get("attention_bias", False))
    return FlatConfig(
        architecture=architecture,
        vocab=int(config["vocab_size"]),
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=int(config["intermediate_size"]),
        context=int(config["max_position_embeddings"]),
        eps=float(config.get("rms_norm_eps", 1e-5 if family == "phi3" else 1e-6)),
        rope=_rope(config, family, head_dim),
        windows=_windows(config, family, layers),
        qkv_bias=family == "qwen2" or attention_bias,
        out_bias=attention_bias,
        mlp_bias=family == "llama" and bool(config.get("mlp_bias", False)),
        qk_norm=family == "qwen3",
        fused=family == "phi3",
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _rope(config: Config, family: str, head_dim: int) -> RopeConfig:
    # A scaling in the old place wins over the new one, as it does in transformers.
    scaling = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in scaling.values()):
        raise UnsupportedError("its rotary embedding differs between layers")
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if family == "phi3" and kind in ("su", "yarn"):  # early names of the long rope
        kind = "longrope"
    if kind not in KINDS:
        raise UnsupportedError(f"its rotary scaling {kind!r} is unknown")
    needed = {
        "linear": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
        "longrope": ("short_factor", "long_factor"),
    }.get(kind, ())
    for key in needed:
        if key not in scaling:
            raise UnsupportedError(f"its {kind} rotary scaling has no {key}")
    partial = float(scaling.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0)
    dim = int(head_dim * partial)
    if kind == "longrope" and {len(scaling["short_factor"]), len(scaling["long_factor"])} != {dim // 2}:
        raise UnsupportedError(f"its long rotary factors do not fit {dim // 2} frequencies")
    context = int(config["max_position_embeddings"])
    fallback = 4096 if family == "phi3" else None
    original = (
        config.get("original_max_position_embeddings")
        or fallback
        or scaling.get("original_max_position_embeddings")
        or context
    )
    theta = float(scaling.get("rope_theta") or config.get("rope_theta") or 10000.0)
    return RopeConfig(kind, theta, dim, int(original), context, scaling)


def _windows(config: Config, family: str, layers: int) -> tuple[int, ...]:
    """Each layer's window, 0 for full attention, as the family's own rules say."""
    if family == "llama":
        return (0,) * layers
    window = int(config.get("sliding_window") or 0)
    if family in ("mistral", "phi3"):
        if config.get("layer_types"):
            raise UnsupportedError("it mixes layer types")
        return (window,) * layers
    if not config.get("use_sliding_window", False):
        window = 0
    types = config.get("layer_types")
    if types is None:
        first = int(config.get("max_window_layers", 28))
        return tuple(window if i >= first else 0 for i in range(layers))
    if len(types) != layers or not set(types) <= {"full_attention", "sliding_attention"}:
        raise UnsupportedError("it mixes layer types")
    return tuple(window if kind == "sliding_attention" else 0 for kind in types)
