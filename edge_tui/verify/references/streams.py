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


def _draw_from(score: Float64, size: float, v: Values) -> Sequence[Outcome]:
    """Divides by the temperature.

    Args:
        score: float64 `[V]`.
        size: The largest summand of a score, whose rounding in float32 all of them have.
        v: The values.
    """
    error, tau, best = 4 * ULP * size, v["temperature"], score.max()
    if tau < ARGMAX_BELOW:
        found = argmax(score)
        return [replace(found, doubt=found.doubt | ((score > best - 2 * error) & (score < best)))]
    slack = error / max(tau, 1.0)
    return [replace(outcome(score / tau, score > -inf), slack=slack if slack > TOLERANCE / 4 else 0.0)]


def contrast(z: Float64, other: Float64) -> Float64:
    """Subtracts logits float64 `[V]`; what either removed differs as their best tokens do."""
    found = np.full(len(z), z.max() - other.max())
    both = (z > -inf) & (other > -inf)
    found[both] = z[both] - other[both]
    return found


def _largest(*parts: Float64) -> float:
    return float(sum(np.abs(part[part > -inf]).max(initial=0.0) for part in parts))


def _cfg(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    z, other = _main(streams, v, context), streams["negative"]
    gamma = v["guidance_scale"]
    score = -surprise(z) + (gamma - 1) * contrast(-surprise(z), -surprise(other))
    return _draw_from(score, (1 + gamma) * _largest(z, other), v)


def _cad(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    z, other = _main(streams, v, context), streams["question"]
    alpha = v["cad_alpha"]
    score = z + alpha * contrast(z, other)
    return _draw_from(score, (1 + alpha) * _largest(z, other), v)


def _dexperts(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
    z, expert, amateur = _main(streams, v, context), streams["expert"], streams["amateur"]
    alpha = v["dexperts_alpha"]
    score = z + alpha * contrast(expert, amateur)
    return _draw_from(score, _largest(z) + alpha * _largest(expert, amateur), v)


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
