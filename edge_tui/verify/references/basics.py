"""Computes penalties and temperature in float64, and composes stages into whole steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome
from edge_tui.verify.references.filters import near
from edge_tui.verify.references.kinds import Peer, StageReference, Values

if TYPE_CHECKING:
    import torch

ARGMAX_BELOW = 1e-5
"""Smaller temperatures take the likeliest token."""
_MOST_IN_DOUBT = 4
"""Tokens at the edge of one cut about which every combination is tried in the next stage."""


def argmax(z: Float64) -> Outcome:
    """Keeps the likeliest token, the first of equals."""
    place = int(z.argmax())
    only = np.arange(len(z)) == place
    return outcome(z, only, near(z, float(z[place])) & (z != z[place]))


def _penalties(z: Float64, v: Values, context: Context) -> Sequence[Outcome]:
    z = z.copy()
    theta = v.get("repetition_penalty", 1.0)
    for token in {*context.prompt, *context.output}:
        z[token] = z[token] / theta if z[token] > 0 else z[token] * theta
    for token in set(context.output):
        z[token] -= v.get("presence_penalty", 0.0)
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


BASICS = {
    "penalties": StageReference(
        _penalties,
        Peer("transformers RepetitionPenaltyLogitsProcessor", _repetition),
        ("transformers has no presence and no frequency penalty: the own loop is OpenAI's definition.",),
    ),
    "temperature": StageReference(_temperature, Peer("transformers TemperatureLogitsWarper", _tempered)),
}


def compose(
    stages: Mapping[str, StageReference], names: Sequence[str], z: Float64, v: Values, context: Context
) -> list[Outcome]:
    """Applies stages in order, each on every outcome of those before; logits are float32 in between.

    A row that loses its last token keeps the one that was likeliest at first.
    """
    outcomes = [outcome(z, z > -inf)]
    for name in names:
        outcomes = [
            replace(
                after,
                logits=after.logits.astype(np.float32).astype(np.float64),
                doubt=after.doubt | before.doubt,
                equal=after.equal | before.equal,
                chance=after.chance * before.chance,
            )
            for settled in outcomes
            for before in _settle(settled, z)
            for after in stages[name].loop(before.logits, v, context)
        ]
    first = argmax(z)
    return [each if each.logits.max() > -inf else replace(each, logits=first.logits) for each in outcomes]


def _settle(before: Outcome, z: Float64) -> list[Outcome]:
    """Decides about the tokens in doubt in every possible way, because the next stage's sums depend on it.

    About more than a few it does not: they stay in doubt.

    Args:
        before: The outcome of a filter.
        z: Logits of tokens that come back; only which tokens are left matters to what follows.
    """
    places = np.flatnonzero(before.doubt)
    if not len(places):
        return [before]
    ways, rest = [], before.doubt.copy()
    rest[places[:_MOST_IN_DOUBT]] = False
    for stays in product((False, True), repeat=min(len(places), _MOST_IN_DOUBT)):
        logits = before.logits.copy()
        for place, stay in zip(places, stays, strict=False):
            known = logits[place] if logits[place] > -inf else z[place]
            logits[place] = known if stay else -inf
        if logits.max() > -inf:
            ways.append(replace(before, logits=logits, doubt=rest))
    return ways
