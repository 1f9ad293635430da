"""Computes in float64 the stages that learn from the tokens taken."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, log, log2

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome
from edge_tui.verify.references.kinds import Recording, StageReference, Values
from edge_tui.verify.references.mathematics import near, softmax, surprise


def _mirostat(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    tau, eta = v["mirostat_tau"], v["mirostat_eta"]
    mu = 2 * tau
    for before, token in context.steps:
        left = _within(before, mu)
        mu -= eta * (-log2(softmax(np.where(left, before, -inf))[token]) - tau)
    doubt = near(surprise(z) / log(2), mu, 10.0) & (z < z.max())
    return [outcome(z, _within(z, mu), doubt, (z == z.max()) & (surprise(z) / log(2) > mu))]


def _within(z: Float64, mu: float) -> np.ndarray:
    """Finds the tokens of at most μ bits, the likeliest in any case."""
    return np.asarray((surprise(z) / log(2) <= mu) | (z == z.max()))


def _adaptive_p(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    target, decay = v["adaptive_target"], v["adaptive_decay"]
    if target < 0:
        return [outcome(z, z > -inf)]
    average = target
    for before, token in context.steps:
        average = decay * average + (1 - decay) * float(softmax(before)[token])
    distance = np.abs(softmax(z) - min(max(2 * target - average, 0.0), 1.0)) / 0.3
    return [outcome(5 - 10 * distance**2 / (1 + distance), z > -inf)]


LEARNERS = {
    "mirostat": StageReference(
        _mirostat,
        recording=Recording(
            "llama.cpp mirostat_v2",
            "mirostat_v2",
            lambda a: {"mirostat_tau": a["tau"], "mirostat_eta": a["eta"]},
        ),
        disagreements=("Of several likeliest tokens above the bound llama.cpp keeps one; here all stay.",),
        place="last",
    ),
    "adaptive_p": StageReference(
        _adaptive_p,
        recording=Recording(
            "llama.cpp adaptive_p",
            "adaptive_p",
            lambda a: {"adaptive_target": a["target"], "adaptive_decay": a["decay"]},
        ),
        disagreements=(
            "Behind other stages llama.cpp averages what they left of the probabilities, and here the model's"
            " own are averaged.",
        ),
        place="last",
    ),
}
