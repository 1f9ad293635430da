"""Computes in float64 the stages that reshape logits, and the one that tosses a coin."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log

import numpy as np

from edge_tui.verify.outcome import TOLERANCE, ULP, Context, Float64, Outcome, outcome
from edge_tui.verify.references.basics import ARGMAX_BELOW, argmax
from edge_tui.verify.references.filters import near, softmax, surprise
from edge_tui.verify.references.kinds import StageReference, Values
from edge_tui.verify.references.truncation import entropy


def _quadratic(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    k, top = v["smoothing_factor"], z.max()
    return [outcome(top - k * (z - top) ** 2 if k > 0 else z, z > -inf)]


def _dynamic_temperature(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    low, high = v["dynatemp_low"], v["dynatemp_high"]
    most, found = log((z > -inf).sum()), entropy(softmax(z))
    rounding = ULP * (1 + found)
    entropies = (found, max(found - rounding, 0.0), found + rounding)
    doubts = [each / most if most > 0 else 0.0 for each in entropies]
    tau, *others = (low + (high - low) * doubt ** v["dynatemp_exponent"] for doubt in doubts)
    spread = max(abs(each - tau) for each in others)
    unsure = np.full(z.shape, spread > TOLERANCE / 4 * abs(tau))  # a small power of a small entropy
    if tau < ARGMAX_BELOW:
        only = argmax(z)
        return [outcome(only.logits, only.logits > -inf, only.doubt | unsure)]
    return [outcome(z / tau, z > -inf, unsure)]


def _xtc(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    chance, edge = v["xtc_probability"], log(v["xtc_threshold"])
    likely, left = -surprise(z), z > -inf
    above, at_edge = likely >= edge, near(likely, edge)
    outcomes = [outcome(z, left, chance=1 - chance)]
    for counted, weight in ((above, chance), (above | at_edge, 0.0), (above & ~at_edge, 0.0)):
        bound = float(likely[counted].min(initial=inf))
        doubt = near(likely, bound) & (likely > bound) if bound < inf else None
        outcomes.append(outcome(z, left & (likely <= bound), doubt, chance=weight))
    return outcomes[:1] if chance == 0 else outcomes[1:] if chance == 1 else outcomes


SHAPES = {
    "dynamic_temperature": StageReference(_dynamic_temperature),
    "quadratic": StageReference(_quadratic),
    "xtc": StageReference(
        _xtc,
        None,
        ("Where several tokens are the least likely, llama.cpp keeps one of them; here all stay.",),
    ),
}
