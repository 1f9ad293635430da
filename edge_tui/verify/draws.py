"""Counts draws of a strategy on a small vocabulary and compares them with a reference's probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import RandomState

from edge_tui.decoders.base import Decoder, numbers
from edge_tui.verify import driver
from edge_tui.verify.chi_squared import DRAWS, chi_squared
from edge_tui.verify.distributions import Float32, logits, values
from edge_tui.verify.finding import Finding
from edge_tui.verify.outcome import Context, Float64, Outcome, words
from edge_tui.verify.references.kinds import StepReference, ToySearch, Values
from edge_tui.verify.references.mathematics import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VOCAB = 10
_SETTINGS = 3
"""Settings of parameters, each with as many draws."""
_MOST_TRIES = 200
_ROWS = 250
"""Rows of one step, which some strategies keep the last tokens of."""
_FLOOR = -80.0
"""Least logit of streams but the first."""


def count_draws(decoder: Decoder, reference: StepReference, draws: int = DRAWS) -> Finding | None:
    """Draws under a few settings that leave several tokens; None where the strategy never draws."""
    if reference.sampled is None:
        return None
    finding = Finding(decoder.name, f"χ² of {draws:,} draws", limit=0.0)
    settings = 0
    for seed in range(_MOST_TRIES):
        random = RandomState(seed)
        half = np.float32(0.5)
        streams = {stream.name: logits(random, _VOCAB, "normal") * half for stream in decoder.streams}
        for name in list(streams)[1:]:  # a second model is never quite sure that a token cannot be
            streams[name] = np.maximum(streams[name], np.float32(_FLOOR))
        v = {**values(random, numbers(decoder.params)), **reference.sampled}
        if not settings:
            v = {**driver.defaults(decoder), **reference.sampled}
        for name in driver.early_names(decoder, v):
            streams[name] = np.maximum(logits(random, _VOCAB, "normal"), np.float32(-80.0))
        exact = {name: z.astype(np.float64) for name, z in streams.items()}
        outcomes = reference.step(exact, v, Context((0,)))
        chances = mix(outcomes)
        if (chances > 0).sum() < 2:
            continue
        coin = any(0 < each.chance < 1 for each in outcomes)
        found, limit = chi_squared(_count(decoder, streams, v, seed, draws, coin), chances)
        finding.add_chi_squared(found, limit, f"setting {seed} ({words(v)})")
        settings += 1
        if settings == _SETTINGS:
            break
    return finding


def _count(
    decoder: Decoder, streams: Mapping[str, Float32], v: Values, seed: int, draws: int, coin: bool
) -> NDArray[np.int64]:
    """Counts the tokens that rows draw, each with the random numbers of another step.

    Where the first rows have the same final logits, and the reference knows of no coin, the others draw from
    them.
    """
    counts = np.zeros(_VOCAB, dtype=np.int64)
    for first in range(0, draws, _ROWS):
        rows = min(_ROWS, draws - first)
        repeated = {name: np.repeat(z[None], rows, 0) for name, z in streams.items()}
        prompt = np.zeros((rows, 1), dtype=np.int64)
        step = driver.step(decoder, driver.Rows(repeated, [v], prompt, prompt[:, :0], seed, first))
        counts += np.bincount(step.chosen.numpy(), minlength=_VOCAB)
        rest = draws - first - rows
        if (
            rest
            and not coin
            and type(decoder).step is Decoder.step
            and bool((step.final == step.final[0]).all())
        ):
            p, rng = driver.table([v], rest), driver.random_numbers(rest, seed, first + rows)
            chosen = decoder.choose(step.final[:1].repeat(rest, 1), p, rng)
            return counts + np.bincount(chosen.numpy(), minlength=_VOCAB)
    return counts


def count_answers(decoder: Decoder, toy: ToySearch, draws: int) -> Finding:
    """Counts the answers of a search on a toy model, a run for each seed."""
    import torch

    finding = Finding(decoder.name, f"χ² of {draws:,} runs", limit=0.0)
    weights = RandomState(3).standard_normal((toy.vocab, toy.vocab))
    logp = weights - np.log(np.exp(weights).sum(-1, keepdims=True))
    rows = torch.from_numpy(logp.astype(np.float32))
    chances = toy.chances(logp)
    places = {answers: place for place, answers in enumerate(chances)}
    counts = np.zeros(len(places) + 1, dtype=np.int64)  # the last: what cannot come
    v = {**driver.defaults(decoder), **toy.values}
    for seed in range(draws):
        found = driver.search(
            decoder, lambda ids: rows[ids[:, -1]], (0,), toy.length, toy.vocab, v, [toy.vocab - 1], seed
        )
        answers = tuple(choice.tokens for choice in found[: toy.answers])
        counts[places.get(answers, len(places))] += 1
    finding.add_chi_squared(*chi_squared(counts, np.array([*chances.values(), 0.0])), words(toy.values))
    return finding


def mix(outcomes: Sequence[Outcome]) -> Float64:
    """Computes the probabilities float64 `[V]` of tokens over all outcomes."""
    total = sum(each.chance for each in outcomes)
    parts = [each.chance / total * softmax(each.logits) for each in outcomes if each.logits.max() > -inf]
    return np.asarray(np.sum(parts, 0))
