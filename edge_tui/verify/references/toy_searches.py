"""Lists everything that may come of a search that draws, on a model that looks one token back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import permutations
from math import inf
from typing import TypeAlias

import numpy as np

from edge_tui.verify.outcome import Float64
from edge_tui.verify.references.kinds import Answers

BEAMS = 2
_Scored: TypeAlias = tuple[tuple[int, ...], float]
"""Tokens and their sum of log-probabilities."""
_Search: TypeAlias = tuple[tuple[_Scored, ...], _Scored]
"""The live hypotheses, and the best finished one."""


def drawn_beams(logp: Float64, length: int, temperature: float) -> dict[Answers, float]:
    """Computes the chance of each answer of `beam_sample` with two beams and no length penalty.

    Args:
        logp: Log-probabilities `[V, V]` by the token before, 0 at first; the last token ends an answer.
        length: Most tokens.
        temperature: Of the draw.
    """
    end = len(logp) - 1
    states: dict[_Search, float] = {((((), 0.0),), ((), -inf)): 1.0}
    for left in reversed(range(length)):
        after: dict[_Search, float] = defaultdict(float)
        for (live, best), chance in states.items():
            found = [
                ((*tokens, token), score + float(each))
                for tokens, score in live
                for token, each in enumerate(logp[tokens[-1] if tokens else 0])
            ]
            weights = np.exp(np.array([score for _, score in found]) / temperature)
            for order, share in _orders(weights, 2 * BEAMS if left else BEAMS):
                drawn = [found[place] for place in order]
                ended = [each for each in drawn[:BEAMS] if not left or each[0][-1] == end]
                going = [each for each in drawn if each[0][-1] != end]
                going.sort(key=lambda each: each[1], reverse=True)
                best_now = max(best, *ended, key=lambda each: each[1]) if ended else best
                after[tuple(going[:BEAMS]), best_now] += chance * share
        states = after
    chances: dict[Answers, float] = defaultdict(float)
    for (_, best), chance in states.items():
        chances[(best[0],)] += chance
    return chances


def drawn_answers(logp: Float64, length: int) -> dict[Answers, float]:
    """Computes the chance of each pair of different answers, drawn one after the other.

    Args:
        logp: As for `drawn_beams`.
        length: Most tokens.
    """
    chances = dict(_answers(logp, length, (), 0.0))
    return {
        (first, second): p * q / (1 - p)
        for first, p in chances.items()
        for second, q in chances.items()
        if first != second
    }


def _answers(
    logp: Float64, length: int, tokens: tuple[int, ...], total: float
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yields every answer that begins with `tokens`, and its probability."""
    if len(tokens) == length or (tokens and tokens[-1] == len(logp) - 1):
        yield tokens, float(np.exp(total))
        return
    for token, each in enumerate(logp[tokens[-1] if tokens else 0]):
        yield from _answers(logp, length, (*tokens, token), total + float(each))


def _orders(weights: Float64, count: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Yields every order in which `count` are drawn without replacement, and its probability."""
    total = float(weights.sum())
    for order in permutations(range(len(weights)), count):
        share, left = 1.0, total
        for place in order:
            share *= weights[place] / left
            left -= weights[place]
        yield order, share
