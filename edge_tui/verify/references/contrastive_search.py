"""Searches contrastively in float64, one candidate after the other, every text read again from its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from typing import TypeAlias

import numpy as np

from edge_tui.verify.outcome import Context, Float64
from edge_tui.verify.references.chains import compose
from edge_tui.verify.references.kinds import Values
from edge_tui.verify.references.mathematics import softmax

Read: TypeAlias = Callable[[Sequence[int]], tuple[Float64, Float64]]
"""Ids to the logits `[V]` of the next token and the last layer's states `[T, D]`."""


def contrastive_search(
    read: Read, prompt: Sequence[int], count: int, v: Values
) -> tuple[tuple[int, ...], float]:
    """Takes `count` tokens, each the greatest `(1 − α) · p − α · max cosine` of the k likeliest.

    Returns:
        The answer, and the least distance by which a token won: rounding decides where it is almost 0.
    """
    answer: list[int] = []
    closest, alpha = inf, v["penalty_alpha"]
    for _ in range(count):
        context = Context(tuple(prompt), tuple(answer))
        (penalised,) = compose(("penalties",), read([*prompt, *answer])[0], v, context)
        chance = softmax(penalised.logits)
        likeliest = np.argsort(-penalised.logits, kind="stable")[: int(v["num_candidates"]) + 1]
        candidates = likeliest[: int(v["num_candidates"])].tolist()
        objective = []
        for token in candidates:
            states = read([*prompt, *answer, token])[1]
            units = states / np.linalg.norm(states, axis=-1, keepdims=True)
            objective.append((1 - alpha) * chance[token] - alpha * (units[:-1] @ units[-1]).max())
        first, *others = np.sort(objective)[::-1]
        closest = min(closest, first - max(others, default=-inf))
        if len(likeliest) > len(candidates):  # the last candidate, and the first that is none
            closest = min(closest, chance[likeliest[-2]] - chance[likeliest[-1]])
        answer.append(candidates[int(np.argmax(objective))])
    return tuple(answer), closest
