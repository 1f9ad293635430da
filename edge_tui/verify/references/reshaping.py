"""Computes stages that change logits and remove none, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf, log

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome, rounding
from edge_tui.verify.references.basics import ARGMAX_BELOW, argmax
from edge_tui.verify.references.kinds import Recording, StageReference, Values
from edge_tui.verify.references.mathematics import entropy


def _quadratic(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    k, left = v["smoothing_factor"], z > -inf
    if not k:
        return [outcome(z, left)]
    depth = np.where(left, z - z.max(), 0.0)
    return [outcome(z.max() - k * depth**2, left)]


def _dynamic_temperature(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    low, high, exponent = v["dynatemp_low"], v["dynatemp_high"], v["dynatemp_exponent"]
    left, found = z > -inf, entropy(z)
    greatest = log(left.sum())

    def temperature(by: float) -> float:
        """Computes it for an entropy and a power that are wrong by so much."""
        unsure = min(1.0, max(0.0, found + by * max(1.0, found)) / greatest) if greatest else 0.0
        return float(low + (high - low) * unsure**exponent * (1 + by))

    error = rounding(len(z))
    tau, least, most = temperature(0.0), *sorted((temperature(-error), temperature(error)))
    greedy = [argmax(z)] if least < ARGMAX_BELOW else []
    if most < ARGMAX_BELOW:
        return greedy
    tau = max(tau, ARGMAX_BELOW)
    slack = 2 * (most / max(least, ARGMAX_BELOW) - 1)  # a difference of two logits is wrong by both
    return [
        replace(outcome(z / tau, left), slack=slack),
        *(replace(each, chance=0.0) for each in greedy),
    ]


def _range(a: Mapping[str, float]) -> Values:
    """Reads llama.cpp's middle and half width."""
    return {
        "dynatemp_low": max(0.0, a["temp"] - a["delta"]),
        "dynatemp_high": a["temp"] + a["delta"],
        "dynatemp_exponent": a["exponent"],
    }


RESHAPING = {
    "quadratic": StageReference(_quadratic),
    "dynamic_temperature": StageReference(
        _dynamic_temperature,
        recording=Recording("llama.cpp temp_ext", "temp_ext", _range),
        disagreements=("llama.cpp counts tokens of logit −∞ as candidates, here only those left count.",),
    ),
}
