"""Computes penalties and temperature in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from edge_tui.verify.outcome import Bool, Context, Float64, Outcome, outcome, rounding
from edge_tui.verify.references.kinds import Peer, Recording, StageReference, Values

if TYPE_CHECKING:
    import torch

ARGMAX_BELOW = 1e-5
"""Smaller temperatures take the likeliest token."""


def argmax(
    z: Float64,
    parts: Sequence[Float64] = (),
    doubt: Bool | None = None,
    error: Float64 | float | None = None,
) -> Outcome:
    """Keeps the likeliest token, the first of equals; of those that rounding may put first, any one.

    Args:
        z: float64 `[V]`, −inf for removed tokens.
        parts: Numbers float64 `[V]` that `z` is computed from, by default itself. Tokens that have the same
            ones tie in any arithmetic; of others with the same `z` rounding may put any first.
        doubt: bool `[V]`, tokens that a cut before may have removed, or that rounding may put anywhere.
        error: What rounding may change in `z`, for all or float64 `[V]`.
    """
    place = int(z.argmax())
    if error is None:
        error = rounding(len(z)) * max(1.0, abs(float(z[place]))) / 2
    left = np.flatnonzero(z > -inf)
    error = np.broadcast_to(error, z.shape)[left]
    sure = np.full(len(left), True) if doubt is None else ~doubt[left]
    floor = (z[left] - error)[sure].max(initial=-inf)
    rivals = left[z[left] + error >= floor]
    _, first = np.unique(np.stack(list(parts) or [z])[:, rivals], axis=1, return_index=True)
    either = np.zeros(len(z), dtype=np.bool_)
    either[rivals[first]] = len(first) > 1
    return replace(outcome(z, np.arange(len(z)) == place, either), single=True)


def _penalties(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    z = z.copy()
    theta = v.get("repetition_penalty", 1.0)
    # Float32 in between, as logits are: two penalties that cancel leave a tie broken by the last digit.
    for token in {*context.prompt, *context.output}:
        z[token] = np.float32(z[token] / theta if z[token] > 0 else z[token] * theta)
    for token in set(context.output):
        z[token] = np.float32(z[token] - v.get("presence_penalty", 0.0))
        z[token] -= v.get("frequency_penalty", 0.0) * context.output.count(token)
    return [outcome(z, z > -inf)]


def _repetition(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    if v.get("presence_penalty") or v.get("frequency_penalty"):
        return None
    ids = torch.tensor([[*context.prompt, *context.output]])
    penalised: torch.Tensor = RepetitionPenaltyLogitsProcessor(v["repetition_penalty"])(ids, z)
    return penalised


def _temperature(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    if v["temperature"] < ARGMAX_BELOW:
        return [argmax(z)]
    return [outcome(z / v["temperature"], z > -inf)]


def _tempered(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
    from transformers import TemperatureLogitsWarper

    if v["temperature"] < ARGMAX_BELOW:
        return None
    tempered: torch.Tensor = TemperatureLogitsWarper(v["temperature"])(None, z)
    return tempered


def _penalty_values(a: Mapping[str, float]) -> Values:
    names = {"repetition_penalty": "repeat", "presence_penalty": "present", "frequency_penalty": "freq"}
    return {ours: a[theirs] for ours, theirs in names.items()}


BASICS = {
    "penalties": StageReference(
        _penalties,
        Peer("transformers RepetitionPenaltyLogitsProcessor", _repetition),
        Recording("llama.cpp penalties", "penalties", _penalty_values),
        ("transformers has no presence and no frequency penalty: the own loop is OpenAI's definition.",),
    ),
    "temperature": StageReference(_temperature, Peer("transformers TemperatureLogitsWarper", _tempered)),
}
