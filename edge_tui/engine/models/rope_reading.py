"""Reads a model's rotary embeddings from config.json by its family's description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_tui.engine.models.family import Family, UnsupportedError
from edge_tui.engine.models.rope_config import RopeConfig

Config = Mapping[str, Any]

_NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
    "factors": ("factors",),
}
"""Numbers without which a rotary scaling is not one."""


def read_rope(config: Config, family: Family, head_dim: int, *, local: bool = False) -> RopeConfig:
    """Reads the model's rotary embedding, or the one of its windowed layers."""
    scaling, theta = _stated_rope(config, family, local)
    name = str(scaling.get("rope_type", scaling.get("type", "default")))
    kind = family.ropes.get(name)
    if kind is None:
        raise UnsupportedError(f"its rotary scaling {name!r} is unknown")
    for key in _NEEDED.get(kind, ()):
        if scaling.get(key) is None and not (kind == "yarn" and key in scaling):
            raise UnsupportedError(f"its {kind} rotary scaling has no {key}")
    dim = int(head_dim * _rotated_share(config, scaling, family, kind))
    if dim % 2 or not 0 <= dim <= head_dim:
        raise UnsupportedError(f"its rotary embedding would turn {dim} numbers of a head of {head_dim}")
    if kind == "longrope" and {len(scaling["short_factor"]), len(scaling["long_factor"])} != {dim // 2}:
        raise UnsupportedError(f"its long rotary factors do not fit {dim // 2} frequencies")
    if kind == "factors" and len(scaling["factors"]) != dim // 2:
        raise UnsupportedError(f"its rotary factors do not fit {dim // 2} frequencies")
    context = int(config["max_position_embeddings"])
    key = "original_max_position_embeddings"
    original = config.get(key, scaling.get(key, context))
    return RopeConfig(kind, float(theta), dim, int(original), context, scaling)


def _stated_rope(config: Config, family: Family, local: bool) -> tuple[dict[str, Any], Any]:
    """Returns the numbers of a rotary embedding and its base."""
    # A scaling in the old place wins over the new one, as it does in transformers.
    scaling = dict(config.get("rope_scaling") or config.get("rope_parameters") or family.rope)
    if family.rotary_layers != "local":
        if any(isinstance(value, Mapping) for value in scaling.values()):
            raise UnsupportedError("its rotary embedding differs between layers")
        return scaling, scaling["rope_theta"] if "rope_theta" in scaling else config.get(
            "rope_theta", family.theta
        )
    if config.get("rope_scaling") and config.get("rope_parameters"):
        raise UnsupportedError("its config.json has rotary settings in two places")
    nested = any(isinstance(value, Mapping) for value in scaling.values())
    if not nested and config.get("rope_parameters"):
        raise UnsupportedError("its rotary embedding is the same in all layers")
    if nested:
        scaling = dict(scaling.get("sliding_attention" if local else "full_attention") or {})
    elif local:
        scaling = {}  # the old key is for full layers
    if local:
        return scaling, scaling.get("rope_theta", config.get("rope_local_base_freq", family.local_theta))
    return scaling, scaling.get("rope_theta", config.get("rope_theta", family.theta))


def _rotated_share(config: Config, scaling: Config, family: Family, kind: str) -> float:
    """Returns the share of a head that is rotated."""
    if family.rotary_layers == "none":
        return 0.0
    share = scaling.get("partial_rotary_factor", config.get("partial_rotary_factor", family.rotary_share))
    if kind == "proportional":
        return 1.0  # its table spans the whole head
    if family.partial_rotary:
        return float(share)
    if kind != "default" and share != 1.0:
        raise UnsupportedError(f"its {kind} rotary scaling is for {share} of each head")
    return 1.0
