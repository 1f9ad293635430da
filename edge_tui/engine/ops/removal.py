"""Finds the link of a chain that removed each of the alternatives, from what a step logged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.step_log import KEPT, OWN, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from edge_tui.decoders.core.step_log import StepLog

Removals = tuple[tuple[int, "Tensor"], ...]
"""Numbers of links, or `OWN`, and the logits float32 `[R, V]` that each left, in order."""


def removals_of(log: StepLog, rows: int, positions: int = 1) -> tuple[Removals | None, ...]:
    """Sorts what a step logged by the positions that it read.

    Args:
        log: The step's log.
        rows: Rows `R` of a position.
        positions: Their number; more than one after proposals.

    Returns:
        For each position its removals; None where they cannot be told, because a strategy applied its chain
        to other logits as well, or did not tell the positions apart.
    """
    if any(not 0 <= position < positions for position in log.removals):
        return (None,) * positions
    if positions > 1 and list(log.removals) == [0]:
        return (None,) * positions
    return tuple(_in_order(log.removals.get(position, []), rows) for position in range(positions))


def _in_order(logged: Sequence[tuple[int, Tensor]], rows: int) -> Removals | None:
    """Returns what was logged; None where a link acted twice, or on other rows."""
    numbers = [number for number, _ in logged if number != OWN]
    if numbers != sorted(set(numbers)) or any(len(z) != rows for _, z in logged):
        return None
    return tuple(logged)


def removing_stages(
    ids: Tensor,
    final: Tensor,
    removals: Removals | None,
    parent: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """Finds the link that removed each token.

    Args:
        ids: int `[R, N]`; −1 for no token.
        final: float32 `[R, V]`, the logits that the choice was made from.
        removals: What the links left; None where that is not known.
        parent: int64 `[R]`, the row of `removals` that each row continues; None where that is its own.
        known: int8 `[R, V]`, the result for each token, `UNKNOWN` where `removals` tell it; None where they
            tell all.

    Returns:
        int64 `[R, N]`: the number of the first link that made it −inf, `KEPT`, `OWN` where no link did, or
        `UNKNOWN`.
    """
    import torch

    places = ids.clamp_min(0).long()
    stages = torch.full_like(places, UNKNOWN if removals is None else OWN)
    for number, z in reversed(removals or ()):  # the first is written last
        left = z.gather(-1, places) if parent is None else z[parent[:, None], places]
        stages = stages.masked_fill(left == -torch.inf, number)
    if known is not None:
        found = known.gather(-1, places).long()
        stages = stages.where(found == UNKNOWN, found)
    stages = stages.masked_fill(final.gather(-1, places) > -torch.inf, KEPT)
    return stages.masked_fill(ids < 0, UNKNOWN)
