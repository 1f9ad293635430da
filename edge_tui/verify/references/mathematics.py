"""Computes in float64 what several references are made of."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np

from edge_tui.verify.outcome import Bool, Float64, Outcome, outcome, rounding


def softmax(z: Float64) -> Float64:
    """Computes probabilities float64 `[…, V]`."""
    weight = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(weight / weight.sum(-1, keepdims=True))


def surprise(z: Float64) -> Float64:
    """Computes `−log p` in nats; +inf for removed tokens."""
    top = z.max()
    return np.asarray(np.log(np.exp(z - top).sum()) + top - z)


def near(number: Float64, edge: float, scale: float = 1.0) -> Bool:
    """Tells which numbers are so close to an edge that rounding decides; `scale` is their size."""
    with np.errstate(invalid="ignore"):
        return np.asarray(
            (edge > -inf) & (np.abs(number - edge) <= rounding(len(number)) * max(scale, abs(edge)))
        )


def entropy(z: Float64) -> float:
    """Computes `Σ −p log p` in nats."""
    p, unlikely = softmax(z), surprise(z)
    return float((p[p > 0] * unlikely[p > 0]).sum())


def least(z: Float64, floor: float, scale: float) -> Sequence[Outcome]:
    """Keeps tokens with `log p ≥ floor`, the best one in any case."""
    if floor == -inf:
        return [outcome(z, z > -inf)]
    likely = -surprise(z)
    top = z == z.max()
    return [outcome(z, (likely >= floor) | top, near(likely, floor, scale) & ~top)]
