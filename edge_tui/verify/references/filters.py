"""Computes filters in float64, and calls transformers' classes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log
from typing import TYPE_CHECKING

import numpy as np

from edge_tui.verify.outcome import EDGE_ULPS, ULP, Bool, Context, Float64, Outcome, outcome
from edge_tui.verify.references.kinds import Peer, StageReference, Values

if TYPE_CHECKING:
    import torch


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
        return np.asarray((edge > -inf) & (np.abs(number - edge) <= EDGE_ULPS * ULP * max(scale, abs(edge))))


def prefix(z: Float64, key: Float64, target: float, rounding: float) -> Sequence[Outcome]:
    """Keeps the shortest prefix of mass `target`, in order of `key`; equal keys stay together.

    Args:
        z: float64 `[V]`.
        key: float64 `[V]`, small first.
        target: The mass that the prefix must reach.
        rounding: Error of a key in float32.
    """
    p = softmax(z)
    order = np.argsort(key, kind="stable")
    keys = key[order]
    before = np.concatenate(([0.0], np.cumsum(p[order])))
    mass = np.empty_like(p)
    mass[order] = before[np.searchsorted(keys, keys)]  # of all keys that are smaller
    kept = (mass < target) & (z > -inf)
    kept |= key == keys[0]
    last = key[kept].max()
    ulps = (EDGE_ULPS + len(z) / 1000) * ULP
    doubt = (np.abs(mass - target) <= ulps) & (key > keys[0])
    # Keys that are equal but for rounding: their order, and so the mass before each, is any.
    close = np.abs(key - last) <= rounding
    if (close & (key != last)).any():
        doubt |= close
    equal = key == last
    return [outcome(z, kept, doubt, equal if equal.sum() > 1 else None)]


def _top_k(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    k = int(v["top_k"])
    if k == 0 or k >= len(z):
        return [outcome(z, z > -inf)]
    edge = np.sort(z)[-k]
    return [outcome(z, z >= edge, near(z, edge) & (z != edge))]


def _top_p(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["top_p"] >= 1:
        return [outcome(z, z > -inf)]
    return prefix(z, z.max() - z, v["top_p"], 0.0)


def _typical(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["typical_p"] >= 1:
        return [outcome(z, z > -inf)]
    p, unlikely = softmax(z), surprise(z)
    entropy = float((p[p > 0] * unlikely[p > 0]).sum())
    with np.errstate(invalid="ignore"):
        key = np.abs(unlikely - entropy)
    peak = float(np.abs(z[p > 0]).max())
    return prefix(z, key, v["typical_p"], 8 * ULP * max(1.0, entropy, peak))


def least(z: Float64, floor: float, scale: float) -> Sequence[Outcome]:
    """Keeps tokens with `log p ≥ floor`, the best one in any case."""
    if floor == -inf:
        return [outcome(z, z > -inf)]
    likely = -surprise(z)
    top = z == z.max()
    return [outcome(z, (likely >= floor) | top, near(likely, floor, scale) & ~top)]


def _min_p(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    share = v["min_p"]
    floor = log(share) - float(surprise(z).min()) if share > 0 else -inf
    return least(z, floor, 1.0)


def call_warper(name: str, param: str, neutral: float, refused: float = inf) -> Peer:
    """Makes a peer of a class of transformers that takes one number, and is left out if neutral.

    Args:
        name: Of the class.
        param: The parameter that is the number.
        neutral: Its value at which transformers makes no such class.
        refused: The least number that the class does not take.
    """

    def call(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
        import transformers

        number: float = int(v[param]) if param == "top_k" else v[param]
        if number == neutral:
            return z
        if number >= refused:
            return None
        warped: torch.Tensor = getattr(transformers, name)(number)(None, z)
        return warped

    return Peer(f"transformers {name}", call)


_BY_ORDER = "Of tokens that tie at the edge transformers keeps some, by the order of a sort; here all stay."

FILTERS = {
    "top_k": StageReference(_top_k, call_warper("TopKLogitsWarper", "top_k", 0)),
    "top_p": StageReference(_top_p, call_warper("TopPLogitsWarper", "top_p", 1), (_BY_ORDER,)),
    "min_p": StageReference(_min_p, call_warper("MinPLogitsWarper", "min_p", 0)),
    "typical": StageReference(
        _typical,
        call_warper("TypicalLogitsWarper", "typical_p", 1),
        ("Tokens whose distance from the entropy is equal but for rounding may swap at the edge.",),
    ),
}
