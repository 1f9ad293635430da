"""Reads config.json into the few numbers that the flat decoder needs, or refuses it with a reason.

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

DEFAULTS: dict[str, dict[str, Any]] = {
    "qwen2": {
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 22016,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "max_window_layers": 28,
        "layer_types": None,
    },
    "llama": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "head_dim": None,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "mlp_bias": False,
    },
    "mistral": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": None,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "sliding_window": 4096,
    },
    "phi3": {
        "vocab_size": 32064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": None,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
}
"""Defaults of transformers' config classes for keys that config.json lacks; a test compares the two."""
DEFAULTS["qwen3"] = DEFAULTS["qwen2"] | {"head_dim": 128, "attention_bias": False}
for _common in DEFAULTS.values():
    _common |= {"hidden_act": "silu", "tie_word_embeddings": False}
_NULLABLE = {
    "num_key_value_heads": ("qwen2", "qwen3", "llama", "phi3"),
    "sliding_window": tuple(DEFAULTS),
    "layer_types": ("qwen2", "qwen3"),
    "head_dim": ("llama", "mistral"),
}
"""Keys whose null means something, and in which families; elsewhere null is an error."""
_OWN_THETA = 10000.0


class UnsupportedError(ValueError):
    """Says why the flat decoder does not cover a config, as one clause."""


@dataclass(frozen=True, slots=True)
class FlatConfig:
    """Holds a decoder of the Llama family in numbers.

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
        qkv_bias: True if queries, keys and values have a bias.
        out_bias: True if the attention's output has one.
        mlp_bias: True if the feed-forward layer has biases.
        qk_norm: True if each head's query and key are normalised before rotation.
        fused: True if the checkpoint stores `qkv_proj` and `gate_up_proj` in one piece each.
        tied: True if the head is the embedding.
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
    """Tells why the flat decoder does not cover a config.json, as one clause; None if it does."""
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
    try:
        return _read(_filled(config, family), architecture, family)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        if isinstance(error, UnsupportedError):
            raise
        what = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read ({error})"
        raise UnsupportedError(f"its config.json {what}") from error


def _filled(config: Config, family: str) -> Config:
    """Fills in the family's defaults for what a config lacks."""
    filled = DEFAULTS[family] | dict(config)
    for key in DEFAULTS[family]:
        if filled[key] is None and family not in _NULLABLE.get(key, ()):
            raise UnsupportedError(f"its config.json has null for {key}")
    return filled


def architecture_of(config: Config) -> str:
    """Names the model class: config.json's own, else that of its `model_type`; "" for neither."""
    classes = config.get("architectures")
    if isinstance(classes, list | tuple) and classes and isinstance(classes[0], str):
        return classes[0]
    by_family = {family: name for name, family in FAMILIES.items()}
    return by_family.get(str(config.get("model_type", "")), "")


def _read(config: Config, architecture: str, family: str) -> FlatConfig:
    if config["hidden_act"] not in ("silu", "swish"):
        raise UnsupportedError(f"its activation is {config['hidden_act']!r}, not SiLU")
    hidden, heads, layers = (
        int(config[k]) for k in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    kv_heads = heads if config["num_key_value_heads"] is None else int(config["num_key_value_heads"])
    # The classes of Qwen2 and Phi-3 have no such key, but their models ask for it.
    own_dim = config.get("head_dim")
    if own_dim is None and "head_dim" in config and "head_dim" not in DEFAULTS[family]:
        raise UnsupportedError("its config.json has null for head_dim")
    head_dim = hidden // heads if own_dim is None else int(own_dim)
    if heads % kv_heads:
        raise UnsupportedError(f"its {heads} query heads do not share {kv_heads} key heads evenly")
    attention_bias = "attention_bias" in DEFAULTS[family] and bool(config["attention_bias"])
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
        eps=float(config["rms_norm_eps"]),
        rope=_rope(config, family, head_dim),
        windows=_windows(config, family, layers),
        qkv_bias=family == "qwen2" or attention_bias,
        out_bias=attention_bias,
        mlp_bias="mlp_bias" in DEFAULTS[family] and bool(config["mlp_bias"]),
        qk_norm=family == "qwen3",
        fused=family == "phi3",
        tied=bool(config["tie_word_embeddings"]),
    )


def _rope(config: Config, family: str, head_dim: int) -> RopeConfig:
    # A scaling in the old place wins over the new one, as it does in transformers.
    scaling = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in scaling.values()):
        raise UnsupportedError("its rotary embedding differs between layers")
    kind = str(scaling.get("rope_type", scaling.get("type", "default")))
    if family == "phi3" and kind in ("su", "yarn"):  # early names of the long rope
        kind = "longrope"
    if kind not in KINDS or (family == "phi3" and kind not in ("default", "longrope")):
        raise UnsupportedError(f"its rotary scaling {kind!r} is unknown")
    required = {
        "linear": ("factor",),
        "dynamic": ("factor",),
        "yarn": ("factor",),
        "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
        "longrope": ("short_factor", "long_factor"),
    }.get(kind, ())
    for key in required:
        if scaling.get(key) is None and not (kind == "yarn" and key in scaling):
            raise UnsupportedError(f"its {kind} rotary scaling has no {key}")
    dim = int(head_dim * _rotated_share(config, scaling, family, kind))
    if kind == "longrope" and {len(scaling["short_factor"]), len(scaling["long_factor"])} != {dim // 2}:
        raise UnsupportedError(f"its long rotary factors do not fit {dim // 2} frequencies")
    context = int(config["max_position_embeddings"])
    original = context
    if "original_max_position_embeddings" in config:
        original = config["original_max_position_embeddings"]
    elif "original_max_position_embeddings" in scaling:
        original = scaling["original_max_position_embeddings"]
    theta = scaling["rope_theta"] if "rope_theta" in scaling else config.get("rope_theta", _OWN_THETA)
    return RopeConfig(kind, float(theta), dim, int(original), context, scaling)


def _rotated_share(config: Config, scaling: Config, family: str, kind: str) -> float:
    """Returns the share of a head that is rotated: less than all in some models of Phi-3 alone."""
    share = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if family == "phi3":
        return float(share)
    if kind != "default" and share != 1.0:
        raise UnsupportedError(f"its {kind} rotary scaling is for {share} of each head")
    return 1.0


def _windows(config: Config, family: str, layers: int) -> tuple[int, ...]:
    """Returns each layer's window, 0 for full attention, by the family's own rules."""
    if family == "llama":
        return (0,) * layers
    window = 0 if config["sliding_window"] is None else int(config["sliding_window"])
    if config["sliding_window"] is not None and window < 1:
        raise UnsupportedError(f"its window is {window}")
    if family in ("mistral", "phi3"):
        if "layer_types" in config:
            raise UnsupportedError("its config.json lists layer types, which its family does not have")
        return (window,) * layers
    if not config["use_sliding_window"]:
        window = 0
    types = config["layer_types"]
    if types is None:
        first = int(config["max_window_layers"])
        return tuple(window if i >= first else 0 for i in range(layers))
    if len(types) != layers or not set(types) <= {"full_attention", "sliding_attention"}:
        raise UnsupportedError("it mixes layer types")
    if "sliding_attention" in types and not window:
        raise UnsupportedError("its layer types have a window, but it says none")
    return tuple(window if kind == "sliding_attention" else 0 for kind in types)
