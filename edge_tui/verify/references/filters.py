"""Computes the cuts of prefixes and shares in float64: top-k, top-p, min-p, typical."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import numpy as np

from edge_tui.verify.outcome import ULP, Context, Float64, Outcome, outcome, rounding
from edge_tui.verify.references.kinds import Recording, StageReference, Values
from edge_tui.verify.references.library import warper
from edge_tui.verify.references.mathematics import entropy, least, near, softmax, surprise


def prefix(z: Float64, key: Float64, target: float, error: float) -> Sequence[Outcome]:
    """Keeps the shortest prefix of mass `target`, in order of `key`; equal keys stay together.

    Args:
        z: float64 `[V]`.
        key: float64 `[V]`, small first.
        target: The mass that the prefix must reach.
        error: Error of a key in float32.
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
    doubt = (np.abs(mass - target) <= rounding(len(z))) & (key > keys[0])
    # Keys that are equal but for rounding: their order, and so the mass before each, is any.
    close = np.abs(key - last) <= error
    if (close & (key != last)).any():
        doubt |= close
    equal = key == last
    return [outcome(z, kept, doubt, equal if equal.sum() > 1 else None)]


def _top_k(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    k = int(v["top_k"])
    if k == 0 or k >= len(z):
        return [outcome(z, z > -inf)]
    edge = np.sort(z)[-k]
    equal = (z == edge) & (z > -inf)
    return [outcome(z, (z >= edge) & (z > -inf), near(z, edge) & ~equal, equal)]


def _top_p(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["top_p"] >= 1:
        return [outcome(z, z > -inf)]
    return prefix(z, z.max() - z, v["top_p"], 0.0)


def _typical(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["typical_p"] >= 1:
        return [outcome(z, z > -inf)]
    expected = entropy(z)
    key = np.abs(surprise(z) - expected)
    peak = float(np.abs(z[softmax(z) > 0]).max())
    return prefix(z, key, v["typical_p"], 8 * ULP * max(1.0, expected, peak))


def _min_p(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    share = v["min_p"]
    floor = log(share) - float(surprise(z).min()) if share > 0 else -inf
    return least(z, floor, 1.0)


FILTERS = {
    "top_k": StageReference(
        _top_k,
        warper("TopKLogitsWarper", "top_k", 0),
        Recording("llama.cpp top_k", "top_k", lambda a: {"top_k": a["k"]}),
        ("Of tokens that tie with the k-th llama.cpp keeps some, by the order of a sort; here all stay.",),
    ),
    "top_p": StageReference(
        _top_p,
        warper("TopPLogitsWarper", "top_p", 1),
        Recording("llama.cpp top_p", "top_p", lambda a: {"top_p": a["p"]}),
        ("Of tokens that tie at the edge both keep some, by the order of a sort; here all stay.",),
    ),
    "min_p": StageReference(
        _min_p,
        warper("MinPLogitsWarper", "min_p", 0),
        Recording("llama.cpp min_p", "min_p", lambda a: {"min_p": a["p"]}),
    ),
    "typical": StageReference(
        _typical,
        warper("TypicalLogitsWarper", "typical_p", 1),
        Recording("llama.cpp typical", "typical", lambda a: {"typical_p": a["p"]}),
        (
            "Tokens whose distance from the entropy is equal but for rounding may swap at the edge.",
            "Of tokens that tie at the edge llama.cpp keeps some, by the order of a sort; here all stay.",
        ),
    ),
}
