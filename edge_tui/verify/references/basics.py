"""Computes penalties and temperature in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome
from edge_tui.verify.references.kinds import Peer, Recording, StageReference, Values
from edge_tui.verify.references.mathematics import near

if TYPE_CHECKING:
    import torch

ARGMAX_BELOW = 1e-5
"""Smaller temperatures take the likeliest token."""


def argmax(z: Float64) -> Outcome:
    """Keeps the likeliest token, the first of equals."""
    place = int(z.argmax())
    only = np.arange(len(z)) == place
    return outcome(z, only, near(z, float(z[place])) & (z != z[place]))


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
