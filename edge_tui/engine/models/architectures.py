"""Reads config.json into the few numbers that the flat decoder needs, or refuses it with a reason.

Families are described by data, one TOML each in `families/`; its name is the `model_type`. Checkpoints come
in two layouts: since transformers 5 rotary settings lie in `rope_parameters` and the dtype in `dtype`; most
of the hub has `rope_theta` with `rope_scaling` and `torch_dtype`. Both are read.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

Config = Mapping[str, Any]

KINDS = ("default", "linear", "llama3", "longrope", "yarn", "dynamic", "factors")
"""Types of rotary scaling implemented here. The dynamic one changes nothing up to the model's own limit,
which no run exceeds. The last one has a divisor for each frequency, as GGUF files of Llama 3 store it."""
_ALWAYS = ("head_dim", "layer_types", "rope_", "partial_rotary_factor", "original_max_position_embeddings")
"""Beginnings of keys that count in config.json although a family's class may not have them."""
_OWN_THETA = 10000.0
_NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
    "factors": ("factors",),
}
"""Numbers without which a rotary scaling is not one."""


@dataclass(frozen=True, slots=True)
class Family:
    """Describes a family of decoders that differ in config.json alone.

    Attributes:
        architecture: The class, as config.json names it.
        defaults: Those of transformers' config class for keys that config.json lacks; a test compares them.
        nullable: Keys whose null means something, and is the default if `defaults` has none.
        qkv_bias: True if queries, keys and values have a bias whatever config.json says.
        qk_norm: As in `FlatConfig`.
        fused: As in `FlatConfig`.
        partial_rotary: True if less than a whole head may be rotated.
        ropes: Kind of rotary scaling by its name in config.json.
    """

    architecture: str
    defaults: Config
    nullable: tuple[str, ...]
    qkv_bias: bool = False
    qk_norm: bool = False
    fused: bool = False
    partial_rotary: bool = False
    ropes: Mapping[str, str] = field(default_factory=lambda: {kind: kind for kind in KINDS})


@cache
def families() -> dict[str, Family]:
    """Reads the families of the flat tier, by `model_type`."""
    files = sorted((Path(__file__).parent / "families").glob("*.toml"))
    return {file.stem: Family(**tomllib.loads(file.read_text(encoding="utf-8"))) for file in files}


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Describes a model's rotary embedding.

    Attributes:
        kind: One of `KINDS`.
        theta: Base of the frequencies.
        dim: Rotated width of each head; less than the head's width for partial rotary embeddings.
        original: Positions the model was trained on before its context was extended.
        context: Positions after the extension.
        scaling: The type's own numbers, as config.json names them.
    """

    kind: str
    theta: float
    dim: int
    original: int
    context: int
    scaling: Mapping[str, Any] = field(default_factory=dict)

    def totals(self, total: int) -> range:
        """Returns the lengths of a run that have the same factors as one of `total` positions."""
        if self.kind != "longrope":
            return range(sys.maxsize)
        beyond = self.original + 1
        return range(beyond, sys.maxsize) if total >= beyond else range(beyond)


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
    family = next((each for each in families().values() if each.architecture == architecture), None)
    if family is None:
        raise UnsupportedError(f"{architecture or 'an unnamed architecture'} is not of the Llama family")
    if config.get("quantization_config"):
        raise UnsupportedError("the checkpoint is already quantised")
    try:
        return _read(_filled(config, family), family)
    except UnsupportedError:
        raise
    except KeyError as error:
        raise UnsupportedError(f"its config.json has no {error}") from error
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UnsupportedError(f"its config.json cannot be read ({error})") from error


def _filled(config: Config, family: Family) -> Config:
    """Returns the keys that the family's class has, with its defaults, and those that count without it."""
    defaults = dict.fromkeys(family.nullable) | dict(family.defaults)
    filled = defaults | {key: config[key] for key in config if key in defaults or key.startswith(_ALWAYS)}
    for key, value in filled.items():
        if value is None and key not in family.nullable and (key in defaults or key == "head_dim"):
            raise UnsupportedError(f"its config.json has null for {key}")
    return filled


def architecture_of(config: Config) -> str:
    """Names the model class: config.json's own, else that of its `model_type`; "" for neither."""
    classes = config.get("architectures")
    if isinstance(classes, list | tuple) and classes and isinstance(classes[0], str):
        return classes[0]
    family = families().get(str(config.get("model_type", "")))
    return family.architecture if family else ""


def _read(config: Config, family: Family) -> FlatConfig:
    if config["hidden_act"] not in ("silu", "swish"):
        raise UnsupportedError(f"its activation is {config['hidden_act']!r}, not SiLU")
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    kv_heads = heads if config["num_key_value_heads"] is None else int(config["num_key_value_heads"])
    if heads % kv_heads:
        raise UnsupportedError(f"its {heads} query heads do not share {kv_heads} key heads evenly")
    head_dim = hidden // heads if config.get("head_dim") is None else int(config["head_dim"])
    attention_bias = bool(config.get("attention_bias"))
    windows = _windows(config, int(config["num_hidden_layers"]))
    return FlatConfig(
        architecture=family.architecture,
        vocab=int(config["vocab_size"]),
        hidden=hidden,
        layers=len(windows),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=int(config["intermediate_size"]),
        context=int(config["max_position_embeddings"]),
        eps=float(config["rms_norm_eps"]),
        rope=_rope(config, family, head_dim),
        windows=windows,
        qkv_bias=family.qkv_bias or attention_bias,
        out_bias=attention_bias,
        mlp_bias=bool(config.get("mlp_bias")),
        qk_norm=family.qk_norm,
        fused=family.fused,
        tied=bool(config["tie_word_embeddings"]),
    )


def _rope(config: Config, family: Family, head_dim: int) -> RopeConfig:
    # A scaling in the old place wins over the new one, as it does in transformers.
    scaling = dict(config.get("rope_scaling") or config.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in scaling.values()):
        raise UnsupportedError("its rotary embedding differs between layers")
    name = str(scaling.get("rope_type", scaling.get("type", "default")))
    kind = family.ropes.get(name)
    if kind is None:
        raise UnsupportedError(f"its rotary scaling {name!r} is unknown")
    for key in _NEEDED.get(kind, ()):
        if scaling.get(key) is None and not (kind == "yarn" and key in scaling):
            raise UnsupportedError(f"its {kind} rotary scaling has no {key}")
    dim = int(head_dim * _rotated_share(config, scaling, family, kind))
    if kind == "longrope" and {len(scaling["short_factor"]), len(scaling["long_factor"])} != {dim // 2}:
        raise UnsupportedError(f"its long rotary factors do not fit {dim // 2} frequencies")
    if kind == "factors" and len(scaling["factors"]) != dim // 2:
        raise UnsupportedError(f"its rotary factors do not fit {dim // 2} frequencies")
    context = int(config["max_position_embeddings"])
    key = "original_max_position_embeddings"
    original = config.get(key, scaling.get(key, context))
    theta = scaling["rope_theta"] if "rope_theta" in scaling else config.get("rope_theta", _OWN_THETA)
    return RopeConfig(kind, float(theta), dim, int(original), context, scaling)


def _rotated_share(config: Config, scaling: Config, family: Family, kind: str) -> float:
    """Returns the share of a head that is rotated."""
    share = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    if family.partial_rotary:
        return float(share)
    if kind != "default" and share != 1.0:
        raise UnsupportedError(f"its {kind} rotary scaling is for {share} of each head")
    return 1.0


def _windows(config: Config, layers: int) -> tuple[int, ...]:
    """Returns each layer's window, 0 for full attention."""
    if "sliding_window" not in config:
        return (0,) * layers
    window = 0 if config["sliding_window"] is None else int(config["sliding_window"])
    if config["sliding_window"] is not None and window < 1:
        raise UnsupportedError(f"its window is {window}")
    if "use_sliding_window" not in config:
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
