"""Composes the references of stages into those of chains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from edge_tui.verify.outcome import Context, Float64, Outcome, outcome
from edge_tui.verify.references.basics import BASICS, argmax
from edge_tui.verify.references.filters import FILTERS
from edge_tui.verify.references.kinds import Peer, StageReference, StepReference, Streams, Values
from edge_tui.verify.references.learners import LEARNERS
from edge_tui.verify.references.reshaping import RESHAPING
from edge_tui.verify.references.sequences import SEQUENCES
from edge_tui.verify.references.thresholds import THRESHOLDS
from edge_tui.verify.references.written import WRITTEN

if TYPE_CHECKING:
    import torch

STAGES: dict[str, StageReference] = {
    **BASICS,
    **FILTERS,
    **THRESHOLDS,
    **RESHAPING,
    **SEQUENCES,
    **LEARNERS,
    **WRITTEN,
}
"""The references of stages, by their names in a chain."""
_MOST_IN_DOUBT = 4
"""Tokens at the edge of one cut about which every combination is tried in the next stage."""


def compose(names: Sequence[str], z: Float64, v: Values, context: Context) -> list[Outcome]:
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
                slack=after.slack + before.slack,
                single=after.single or before.single,
            )
            for settled in outcomes
            for before in _settle(settled, z)
            for after in _stage(name).loop(before.logits, values_of(name, v), context)
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


def _stage(link: str) -> StageReference:
    """Finds the reference of a link: `top_k`, or `top_k#2`."""
    return STAGES[link.partition("#")[0]]


def values_of(link: str, v: Values) -> Values:
    """Gives the values of a link under the names of its stage: those of `top_k#2` end in `_2`."""
    end = f"_{link.partition('#')[2]}"
    return v if end == "_" else {**v, **{k.removesuffix(end): x for k, x in v.items() if k.endswith(end)}}


def chain(order: Callable[[Values], Sequence[str]], main: str = "") -> StepReference:
    """Makes the reference of a strategy that draws from what stages leave.

    Args:
        order: The names of the links, first to last, for values.
        main: The link whose peer, recording and disagreements stand for the whole.
    """

    def step(streams: Streams, v: Values, context: Context) -> Sequence[Outcome]:
        return compose(order(v), next(iter(streams.values())), v, context)

    def call(z: torch.Tensor, v: Values, context: Context) -> torch.Tensor | None:
        left: torch.Tensor | None = z
        for link in order(v):
            peer = _stage(link).peer
            left = None if peer is None or left is None else peer.call(left, values_of(link, v), context)
        return left

    if not main:
        return StepReference(step, Peer("transformers, stage by stage", call))
    stage = STAGES[main]
    peer = Peer(stage.peer.name, call) if stage.peer is not None else None
    return StepReference(step, peer, stage.recording, disagreements=stage.disagreements, texts=stage.texts)


def sampling(name: str) -> StepReference:
    """Makes the reference of a strategy that is one filter with penalties and temperature.

    With `order` 0 the temperature comes before the filter, with 1 after it. Penalties stand in front of
    both, and what selects behind them.
    """
    behind, between = ("penalties", "temperature", name), ("penalties", name, "temperature")
    orders = {
        "penalty": ((name, "penalties", "temperature"),),
        "filter": (behind, between),
        "last": (behind,),
    }[STAGES[name].place]
    return chain(lambda v: orders[int(v.get("order", 0))], name)
