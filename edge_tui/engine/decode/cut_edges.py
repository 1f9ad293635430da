"""Measures how near tokens lie to the edges of cuts, for steps that were computed again in another way."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from edge_tui.engine.decode.host_copies import read, to_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.decode.stage_trace import StageChange


def edge_gaps(changes: Sequence[StageChange], ids: Sequence[int]) -> dict[int, tuple[float, ...]]:
    """Measures, at each stage, how far each token lies from the nearest one that fared otherwise there.

    Rounding that moves both by half of that may let them change places, so that the cut goes between others.

    Args:
        changes: Of the stages, first to last.
        ids: The tokens.

    Returns:
        By token a number for each stage (nats between log-probabilities in front of it): +inf where it cuts
        by no number, where all fared alike, and where the token was gone before.
    """
    import torch

    gaps = []
    for each in changes:
        before, left = each.before[0].log_softmax(-1), each.after[0] > -inf
        at = to_device(ids, torch.int64, before.device)
        otherwise = (left != left[at, None]) & (before > -inf)  # `[N, V]`
        gap = (before - before[at, None]).abs().masked_fill(~otherwise, inf).amin(-1)
        is_cut = each.criterion is not None and each.criterion.bound is not None
        gaps.append(gap.masked_fill((before[at] == -inf) | (not is_cut), inf))
    columns = read(*gaps) if gaps else []
    return {token: tuple(column[i] for column in columns) for i, token in enumerate(ids)}
