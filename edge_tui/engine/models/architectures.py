"""Reads config.json into the few numbers that the flat decoder needs, or refuses it with a reason.

Families are described by data, one TOML each in `families/`; its name is the `model_type`. Checkpoints come
in two layouts: since transformers 5 rotary settings lie in `rope_parameters` and the dtype in `dtype`; most
of the hub has `rope_theta` with `rope_scaling` and `torch_dtype`. Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from edge_tui.engine.models.family import Family, feature_keys
from edge_tui.engine.models.family import UnsupportedError as UnsupportedError
from edge_tui.engine.models.family import families as families
from edge_tui.engine.models.features import ACTIVATIONS, LLAMA, Features
from edge_tui.engine.models.layer_shapes import LayerShape, full_width, read_shapes
from edge_tui.engine.models.mixture import read_mixture
from edge_tui.engine.models.rope_config import RopeConfig as RopeConfig
from edge_tui.engine.models.rope_reading import read_rope
from edge_tui.engine.models.tensor_layout import TensorLayout

Config = Mapping[str, Any]

_ALWAYS = ("head_dim", "layer_types", "rope_", "partial_rotary_factor", "original_max_position_embeddings")
"""Beginnings of keys that count in config.json although a family's class may not have them."""


@dataclass(frozen=True, slots=True)
class FlatConfig:
    """Holds a decoder in numbers.

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
        qk_norm: "" or how queries and keys are normalised before rotation: "head" by one norm for all heads,
            "heads" by one for each, "width" over all heads at once.
        tied: True if the head is the embedding.
        head_bias: True if the head has a bias.
        features: Other differences from Llama.
        layout: Names of the stored tensors.
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
    qk_norm: str
    tied: bool
    head_bias: bool = False
    features: Features = LLAMA
    layout: TensorLayout = field(default_factory=TensorLayout)

    @property
    def embedding_width(self) -> int:
        """Width of the embedding, and of the state that the head reads."""
        return self.features.embedding_width or self.hidden

    @property
    def shapes(self) -> tuple[LayerShape, ...]:
        """Each layer's shape."""
        usual = self.kv_heads, self.head_dim, self.intermediate
        return self.features.shapes or tuple(LayerShape(i, *usual) for i in range(self.layers))

    @property
    def kv_width(self) -> int:
        """Numbers of one position's keys and values in all layers that keep their own."""
        return sum(shape.kv_width for i, shape in enumerate(self.shapes) if shape.source == i)

    @property
    def widest_head(self) -> int:
        """Width of the widest head."""
        return max(shape.head_dim for shape in self.shapes)

    @property
    def norm_copies(self) -> int:
        """Numbers that the norms of heads take beside those that are stored: one for all is kept for each."""
        if self.qk_norm != "head":
            return 0
        values = self.features.value_norm
        return sum(shape.norm_copies(i, self.heads, values) for i, shape in enumerate(self.shapes))

    @property
    def is_fusible(self) -> bool:
        """True if a GPU's fused step computes all of it; a CPU's computes what Llama has.

        Norms are those over a root mean square, before or after what they belong to, and feed-forward layers
        are gated. No norm follows a mixture of experts, or what is multiplied before it is added.
        """
        f = self.features
        same = (
            *("norm", "final_norm", "parallel", "gated", "alibi", "embedding_width", "positions"),
            *("shapes", "value_norm", "layer_scale", "per_layer_width"),
        )
        if any(getattr(f, name) != getattr(LLAMA, name) for name in same):
            return False
        follows = f.norm_place in ("after", "both") and f.mixture is None and f.residual_scale == 1.0
        return follows or f.norm_place == "before"


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
    config = _text_of(architecture, config)
    family = _family_of(architecture, config)
    if family is None:
        raise UnsupportedError(
            f"{architecture or 'an unnamed architecture'} is not of the flat decoder's families"
        )
    if config.get("quantization_config"):
        raise UnsupportedError("the checkpoint is already quantised")
    _refuse_unknown_features(config, family)
    try:
        return _read(_filled(config, family), family)
    except UnsupportedError:
        raise
    except KeyError as error:
        raise UnsupportedError(f"its config.json has no {error}") from error
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise UnsupportedError(f"its config.json cannot be read ({error})") from error


def _text_of(architecture: str, config: Config) -> Config:
    """Returns the part of a config.json that describes the decoder of text."""
    nested = config.get("text_config")
    if not isinstance(nested, Mapping) or not any(architecture in each.whole for each in families().values()):
        return config
    return {**nested, "quantization_config": config.get("quantization_config")}


def _family_of(architecture: str, config: Config) -> Family | None:
    """Returns the family of a class; of several, which the keys in `only` tell apart, the one that fits."""
    named = (each for each in families().values() if architecture in (each.architecture, *each.whole))
    same = [family.variant(config) for family in named]
    return next((family for family in same if not _violated(config, family)), same[0] if same else None)


def _violated(config: Config, family: Family) -> str:
    """Names the first key whose value the family does not cover; "" if there is none."""
    for key, values in family.only.items():
        allowed = values if isinstance(values, list) else [values]
        value = config.get(key, allowed[0])
        if value not in allowed and not (value is None and key in family.nullable):
            return key
    return ""


def _refuse_unknown_features(config: Config, family: Family) -> None:
    """Refuses a config.json that asks for what the family's class does not do.

    Raises:
        UnsupportedError: it asks for something.
    """
    if key := _violated(config, family):
        raise UnsupportedError(f"its {key} is {config[key]!r}, which the flat decoder does not cover")
    if config.get("is_causal") is False:
        raise UnsupportedError("its attention looks forward (its is_causal is False)")
    stated = {**family.defaults, **config}
    for key, other in family.same.items():
        if stated.get(key) not in (None, stated.get(other)):
            raise UnsupportedError(f"its {key} is {stated[key]!r}, not its {other}")
    for key in sorted(feature_keys() - family.known):
        value = config.get(key)
        if value and (value is True or value != 1):  # a factor of 1 asks for nothing
            raise UnsupportedError(f"its config.json has {key}, which {family.architecture} does not know")


def _filled(config: Config, family: Family) -> Config:
    """Returns the keys that the family's class has, with its defaults, and those that count without it.

    Keys with another name than Llama's are there by both.
    """
    defaults = dict.fromkeys(family.nullable) | dict(family.defaults)
    for key, other in family.aliases.items():
        if other in config:
            if config.get(key, config[other]) != config[other]:
                raise UnsupportedError(f"its {key} is {config[key]!r}, and its {other} {config[other]!r}")
            config = {**config, key: config[other]}
    own = defaults.keys() | family.keys.values() | family.known
    filled = defaults | {key: config[key] for key in config if key in own or key.startswith(_ALWAYS)}
    for key, value in filled.items():
        if value is None and key not in family.nullable and (key in defaults or key == "head_dim"):
            raise UnsupportedError(f"its config.json has null for {key}")
    renamed = {key: filled[name] for key, name in family.keys.items() if name in filled}
    return filled | renamed | dict(family.fixed)


def architecture_of(config: Config) -> str:
    """Names the model class: config.json's own, else that of its `model_type`; "" for neither."""
    classes = config.get("architectures")
    if isinstance(classes, list | tuple) and classes and isinstance(classes[0], str):
        return classes[0]
    family = families().get(str(config.get("model_type", "")))
    return family.architecture if family else ""


def _read(config: Config, family: Family) -> FlatConfig:
    """Reads the numbers of a config.json that the family covers."""
    hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    stated = config.get("num_key_value_heads")
    kv_heads = heads if stated is None else int(stated)
    if heads % kv_heads:
        raise UnsupportedError(f"its {heads} query heads do not share {kv_heads} key heads evenly")
    head_dim = hidden // heads if config.get("head_dim") is None else int(config["head_dim"])
    wide = config.get("intermediate_size")
    attention_bias = bool(config.get("attention_bias"))
    windows = _windows(config, family, int(config["num_hidden_layers"]))
    if family.last_full:
        windows = (*windows[:-1], 0)
    usual = LayerShape(0, kv_heads, head_dim, 4 * hidden if wide is None else int(wide))
    shapes = read_shapes(config, family, windows, usual)
    return FlatConfig(
        architecture=family.architecture,
        vocab=int(config["vocab_size"]),
        hidden=hidden,
        layers=len(windows),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=usual.intermediate,
        context=int(config["max_position_embeddings"]),
        eps=float(config["rms_norm_eps"]),
        rope=read_rope(config, family, full_width(shapes, windows, head_dim)),
        windows=windows,
        qkv_bias=bool(family.feature("qkv_bias", config, attention_bias)),
        out_bias=bool(family.feature("out_bias", config, attention_bias)),
        mlp_bias=bool(family.feature("mlp_bias", config, config.get("mlp_bias"))),
        qk_norm=family.feature("qk_norm", config, ""),
        tied=bool(config["tie_word_embeddings"]),
        head_bias=bool(family.feature("head_bias", config, False)),
        features=_features(config, family, head_dim, windows, shapes),
        layout=family.tensor_layout(),
    )


def _features(
    config: Config,
    family: Family,
    head_dim: int,
    windows: tuple[int, ...],
    shapes: tuple[LayerShape, ...],
) -> Features:
    """Reads what differs from Llama."""
    stated = {
        each.name: family.feature(each.name, config, getattr(LLAMA, each.name)) for each in fields(Features)
    }
    name = config["hidden_act"]
    activation = family.activations.get(name, ACTIVATIONS.get(name))
    if activation is None:
        raise UnsupportedError(f"its activation {name!r} is unknown")
    local = family.rotary_layers == "local"
    return Features(
        **stated
        | {
            "activation": activation,
            "local_rope": read_rope(config, family, head_dim, local=True) if local else None,
            "rotary": _rotary(config, family, windows),
            "positions": int(config["max_position_embeddings"]) if family.layout.get("positions") else 0,
            "shapes": shapes,
            "mixture": read_mixture(config, family, len(windows)),
        }
    )


def _rotary(config: Config, family: Family, windows: tuple[int, ...]) -> tuple[int, ...]:
    """Returns for each layer which rotary embedding it has, as `Features.rotary`."""
    match family.rotary_layers:
        case "none":
            return (-1,) * len(windows)
        case "windowed":
            return tuple(0 if window else -1 for window in windows)
        case "local":
            return tuple(1 if window else 0 for window in windows)
        case "listed":
            listed = config["no_rope_layers"]  # true for those that are rotated
            if listed is None:
                every = int(config["no_rope_layer_interval"])
                listed = [(i + 1) % every for i in range(len(windows))]
            if len(listed) != len(windows):
                raise UnsupportedError(f"it lists {len(listed)} layers to rotate and has {len(windows)}")
            return tuple(0 if rotated else -1 for rotated in listed)
        case _:
            return ()


def _windows(config: Config, family: Family, layers: int) -> tuple[int, ...]:
    """Returns each layer's window, 0 for full attention."""
    if "sliding_window" not in config:
        if (types := config.get("layer_types")) not in (None, ["full_attention"] * layers):
            raise UnsupportedError(f"its layer types are {str(types)[:60]}, which its family does not have")
        return (0,) * layers
    window = 0 if config["sliding_window"] is None else int(config["sliding_window"])
    unused = "use_sliding_window" in config and not config["use_sliding_window"]
    if config["sliding_window"] is not None and window < 1 and not unused:
        raise UnsupportedError(f"its window is {window}")
    types = config.get("layer_types")
    if types is not None and "layer_types" not in family.nullable:
        raise UnsupportedError("its config.json lists layer types, which its family does not have")
    every = int(config.get("sliding_window_pattern") or family.window_pattern)
    most = int(config.get("max_window_layers", layers))
    if every and types is None and config.get("use_sliding_window", True):
        windowed = [(i + 1) % every and i < most for i in range(layers)]
        types = ["sliding_attention" if each else "full_attention" for each in windowed]
    elif "use_sliding_window" not in config and not every:
        return (window,) * layers
    if not config.get("use_sliding_window", bool(every)):
        window = 0
    if types is None:
        if not window:
            return (0,) * layers
        first = most if "max_window_layers" in config else 0
        return tuple(window if i >= first else 0 for i in range(layers))
    if len(types) != layers or not set(types) <= {"full_attention", "sliding_attention"}:
        raise UnsupportedError("it mixes layer types")
    if "sliding_attention" in types and not window:
        raise UnsupportedError("its layer types have a window, but it says none")
    return tuple(window if kind == "sliding_attention" else 0 for kind in types)
