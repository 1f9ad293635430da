"""Tells where two runs have the same tokens: stretches, partings, and a strip of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_ALL, _SOME, _NONE, _ONE_ENDED = "█", "▒", "·", " "


def partings(one: Sequence[int], other: Sequence[int]) -> list[int]:
    """Lists the positions at which two runs begin to differ, after the same token or at the start."""
    same = [a == b for a, b in zip(one, other, strict=False)]
    return [i for i, each in enumerate(same) if not each and (not i or same[i - 1])]


def agreement_strip(one: Sequence[int], other: Sequence[int], cells: int) -> str:
    """Draws where two runs agree, token by token; several tokens share a cell where there are more.

    Args:
        one: Ids of a run.
        other: Ids of another.
        cells: Most cells.

    Returns:
        A mark for each cell: all tokens are the same, some are, none is, or one of the runs has ended.
    """
    longer = max(len(one), len(other))
    return "".join(
        _mark(one[first:last], other[first:last])
        for first, last in (tokens_of_cell(cell, longer, cells) for cell in range(min(longer, cells)))
    )


def tokens_of_cell(cell: int, tokens: int, cells: int) -> tuple[int, int]:
    """Returns the first token of a cell and that after its last."""
    if tokens <= cells:
        return cell, cell + 1
    return cell * tokens // cells, (cell + 1) * tokens // cells


def cell_of_token(token: int, tokens: int, cells: int) -> int:
    """Returns the cell that a token is drawn in."""
    return token if tokens <= cells else ((token + 1) * cells - 1) // tokens


def _mark(one: Sequence[int], other: Sequence[int]) -> str:
    same = [a == b for a, b in zip(one, other, strict=False)]
    if not same:
        return _ONE_ENDED
    return _ALL if all(same) else _SOME if any(same) else _NONE
