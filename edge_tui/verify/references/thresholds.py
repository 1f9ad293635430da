"""Computes filters that compare each token with a threshold, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome, rounding
from edge_tui.verify.references.kinds import Recording, StageReference, Values
from edge_tui.verify.references.library import warper
from edge_tui.verify.references.mathematics import entropy, least, near, softmax, surprise

_TOP_H = 100
"""Tokens that top-H looks at."""
_UNDERFLOW = 1e-38
"""Probabilities below it are rounded coarsely in float32, or to 0."""


def _top_a(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    share = v["top_a"]
    return least(z, log(share) - 2 * float(surprise(z).min()) if share > 0 else -inf, 1.0)


def _epsilon(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    cut = v["epsilon_cutoff"]
    return least(z, log(cut) if cut > 0 else -inf, 1.0)


def _eta(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    cut = v["eta_cutoff"]
    return least(z, min(log(cut), 0.5 * log(cut) - entropy(z)) if cut > 0 else -inf, 1.0)


def _p_less(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    return least(z, log(float((softmax(z) ** 2).sum())), 1.0)


def _top_h(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["top_h"] >= 1:
        return [outcome(z, z > -inf)]
    best = np.sort(z)[::-1][:_TOP_H]
    p = softmax(best)
    terms = np.zeros_like(p)
    terms[p > 0] = -p[p > 0] * np.log(p[p > 0])
    sums, budget = np.where(p > _UNDERFLOW, terms.cumsum(), inf), v["top_h"] * terms.sum()
    error = rounding(len(z)) * max(1.0, budget)
    fewest, count, most = (int((sums <= budget + by).sum()) for by in (-error, 0.0, error))
    low, edge, high = (best[max(0, number - 1)] for number in (fewest, count, most))
    doubt = (z < low) & (z >= high)
    doubt |= (softmax(z) <= _UNDERFLOW) & (z > -inf) & (terms.sum() <= error)
    equal = z == edge
    return [outcome(z, z >= edge, doubt & (z < best[0]), equal if equal.sum() > 1 else None)]


def _top_n_sigma(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    left = z[z > -inf]
    if v["top_n_sigma"] == 0:
        return [outcome(z, z > -inf)]
    floor = float(left.max() - v["top_n_sigma"] * left.std())
    best = z == left.max()
    return [outcome(z, (z >= floor) | best, near(z, floor, float(np.abs(left).max())) & ~best)]


def _tfs(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["tfs"] >= 1:
        return [outcome(z, z > -inf)]
    p = softmax(z)
    falling = np.sort(p)[::-1]
    bends = np.abs(np.diff(falling, 2))
    sums, share = bends.cumsum(), v["tfs"] * bends.sum()
    error = rounding(len(z)) * max(0.1, share)  # each bend is a difference of rounded probabilities
    fewest, count, most = (int((sums <= share + by).sum()) for by in (-error, 0.0, error))
    low, edge, high = falling[fewest], falling[count], falling[most]
    doubt = (p < low) & (p >= high)
    doubt |= (np.abs(p - edge) <= max(_UNDERFLOW, rounding(len(z)) * edge)) & (p != edge)
    return [outcome(z, (p >= edge) & (z > -inf), doubt & (p < falling[0]))]


def _xtc(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    """Gives both results of the coin; where a token is at the threshold, also those without it."""
    p, chance = softmax(z), v["xtc_probability"]
    found = [outcome(z, z > -inf, chance=1 - chance)]
    for number, by in enumerate((0.0, -1.0, 1.0)):
        likely = (p >= v["xtc_threshold"] * (1 + by * rounding(len(z)))) & (z > -inf)
        last = p[likely].min() if likely.any() else inf
        equal = p == last
        close = (np.abs(p - last) <= rounding(len(z)) * last) & ~equal if likely.any() else None
        kept = (p <= last) & (z > -inf)
        several = equal if equal.sum() > 1 else None
        found.append(outcome(z, kept, close, several, chance=0.0 if number else chance))
    return [each for each in found if each.chance] + found[2:] if chance else found[:1]


THRESHOLDS = {
    "top_a": StageReference(_top_a),
    "epsilon": StageReference(_epsilon, warper("EpsilonLogitsWarper", "epsilon_cutoff", 0)),
    "eta": StageReference(_eta, warper("EtaLogitsWarper", "eta_cutoff", 0)),
    "p_less": StageReference(_p_less),
    "top_h": StageReference(
        _top_h,
        warper("TopHLogitsWarper", "top_h", 1),
        disagreements=(
            "Of tokens that tie at the edge transformers keeps some, by the order of a sort; here all stay.",
            "At 1 transformers keeps the 100 likeliest tokens, here all stay.",
        ),
    ),
    "top_n_sigma": StageReference(
        _top_n_sigma,
        recording=Recording("llama.cpp top_n_sigma", "top_n_sigma", lambda a: {"top_n_sigma": a["n"]}),
    ),
    "tfs": StageReference(
        _tfs, disagreements=("koboldcpp keeps one token less; this is textgen's rule, and the author's.",)
    ),
    "xtc": StageReference(
        _xtc,
        recording=Recording(
            "llama.cpp xtc", "xtc", lambda a: {"xtc_probability": 1.0, "xtc_threshold": a["t"]}
        ),
        disagreements=("Of several that are the least likely from t on llama.cpp keeps one; here all stay.",),
    ),
}
