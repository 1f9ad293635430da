"""Works out an `Edge` in double precision by a sort: the reference for filters, kernels and users' files."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.criterion import Edge

SUM = 1e-5
"""Rounded sums of the same probabilities may land on either side of a bound this close."""
KEY = 1e-4
"""Keys closer than this may be put in either order."""


def cut(z: Tensor, edge: Edge, value: float, shift: float = 0.0) -> Tensor:
    """Marks the candidates that stay, bool `[R, V]`.

    Args:
        z: float `[R, V]`; −inf means removed.
        edge: The declaration.
        value: Of its parameter, not the neutral one.
        shift: Moves the bound: above 0 keeps what rounding might keep, below 0 drops what it might drop.
    """
    key, weight = _order(z, edge)
    if edge.weight is None:
        bound = -math.log(value) if value > 0 else math.inf
        return (key <= bound + shift * KEY) & (z > -math.inf)
    keys, order = key.sort(-1)
    sums = weight.gather(-1, order).cumsum(-1)
    target = value + shift * SUM if edge.weight == "mass" else value
    last = (sums < sums[:, -1:].clamp(max=target)).sum(-1, keepdim=True).clamp(max=z.shape[-1] - 1)
    return (key <= keys.gather(-1, last) + shift * KEY) & (z > -math.inf)


def fits(kept: Tensor, z: Tensor, edge: Edge, value: float) -> bool:
    """Tells whether `kept` is the set that the edge leaves, up to what only rounding decides."""
    must, may = cut(z, edge, value, -1.0), cut(z, edge, value, 1.0)
    inside = bool((kept | ~must).all()) and bool((may | ~kept).all())
    if edge.weight is None:
        return inside
    weight = _order(z, edge)[1]
    enough = weight.sum(-1).clamp(max=value) - SUM
    return inside and bool((weight.where(kept, 0.0).sum(-1) >= enough).all())


def _order(z: Tensor, edge: Edge) -> tuple[Tensor, Tensor]:
    """Keys and weights, float64 `[R, V]`."""
    z = z.double()
    key = z.amax(-1, keepdim=True) - z
    logp = z.log_softmax(-1)
    p = logp.exp()
    if edge.key == "surprise":
        entropy = -(p * logp.clamp_min(-1e300)).sum(-1, keepdim=True)
        key = (-logp - entropy).abs()
    weight = p if edge.weight == "mass" else (z > -math.inf).double()
    return key.masked_fill(z == -math.inf, math.inf), weight
