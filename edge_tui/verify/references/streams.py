"""Computes in float64 whole steps that mix the logits of several streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np

from edge_tui.verify.outcome import TOLERANCE, ULP, Context, Float64, Outcome, outcome
from edge_tui.verify.references.basics import ARGMAX_BELOW, argmax
from edge_tui.verify.references.chains import compose
from edge_tui.verify.references.kinds import StepReference, Streams, Values
from edge_tui.verify.references.mathematics import surprise


def _main(streams: Streams, v: Values, context: Context) -> Float64:
    (penalised,) = compose(("penalties",), streams["model"], v, context)
    return penalised.logits


def _draw_from(score: Float64, parts: Sequence[Float64], size: float, v: Values) -> Sequence[Outcome]:
    """Divides by the temperature.

    Args:
        score: float64 `[V]`.
        parts: The logits that it is computed from.
        size: The largest summand of a score, whose rounding in float32 all of them have.
        v: The values.
    """
    error, tau = 4 * ULP * size, v["temperature"]
    if tau < ARGMAX_BELOW:
        return [argmax(score, parts, error=error)]
    slack = error / max(tau, 1.0)
    return [replace(outcome(score / tau, score > -inf), slack=slack if slack > TOLERANCE / 4 else 0.0)]


def contrast(z: Float64, other: Float64) -> Float64:
    """Subtracts logits float64 `[V]`; what either removed differs as their best tokens do."""
    found = np.full(len(z), z.max() - other.max())
    both = (z > -inf) & (other > -inf)
    found[both] = z[both] - other[both]
    return found


def largest(*parts: Float64) -> float:
    """Adds up the largest sizes of logits float64 `[V]` that are left."""
    return float(sum(np.abs(part[part > -inf]).max(initial=0.0) for part in parts))


def _cfg(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    z, other = _main(streams, v, context), streams["negative"]
    gamma = v["guidance_scale"]
    score = -surprise(z) + (gamma - 1) * contrast(-surprise(z), -surprise(other))
    return _draw_from(score, (z, other), (1 + gamma) * largest(z, other), v)


def _cad(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    z, other = _main(streams, v, context), streams["question"]
    alpha = v["cad_alpha"]
    score = z + alpha * contrast(z, other)
    return _draw_from(score, (z, other), (1 + alpha) * largest(z, other), v)


def _dexperts(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    z, expert, amateur = _main(streams, v, context), streams["expert"], streams["amateur"]
    alpha = v["dexperts_alpha"]
    score = z + alpha * contrast(expert, amateur)
    return _draw_from(score, (z, expert, amateur), largest(z) + alpha * largest(expert, amateur), v)


STREAMS = {
    "cfg": StepReference(
        _cfg,
        disagreements=(
            "transformers' scores are log-probabilities, here they are logits: one summand apart.",
        ),
    ),
    "cad": StepReference(_cad),
    "dexperts": StepReference(
        _dexperts,
        disagreements=("The authors' code first keeps the base model's nucleus of 0.9; here no token goes.",),
    ),
}
"""Whole steps of several streams, by the names of strategies."""
