"""Keeps what the host knows of the lengths of a context's rows, so that a step need not ask the device."""

from __future__ import annotations

from collections.abc import Sequence


class RowLengths:
    """Holds an upper bound of each row's length; what `part` returns reads and writes the same numbers.

    Args:
        rows: Number of rows, all of them empty.
    """

    __slots__ = ("_bounds", "_exact", "_rows")

    def __init__(self, rows: int) -> None:
        self._bounds = [0] * rows
        self._exact = [True] * rows
        """True for a row whose bound is its length."""
        self._rows = slice(0, rows)

    def part(self, first: int, end: int) -> RowLengths:
        """Selects the rows from `first` to before `end`."""
        part = RowLengths(0)
        part._bounds, part._exact = self._bounds, self._exact
        part._rows = slice(self._rows.start + first, self._rows.start + end)
        return part

    @property
    def bound(self) -> int:
        """Upper bound of all rows' lengths."""
        return max(self._bounds[self._rows])

    @property
    def level(self) -> bool:
        """True where it is known that all rows have one length."""
        bounds = self._bounds[self._rows]
        return all(self._exact[self._rows]) and min(bounds) == max(bounds)

    @property
    def known(self) -> list[int] | None:
        """Each row's length; None where one of them is not known."""
        return self._bounds[self._rows] if all(self._exact[self._rows]) else None

    def note(self, lengths: Sequence[int]) -> None:
        """Takes down the exact length of each row."""
        self._bounds[self._rows] = lengths
        self._exact[self._rows] = [True] * len(lengths)

    def count(self, count: int) -> None:
        """Counts positions that are appended to each row."""
        self._bounds[self._rows] = [bound + count for bound in self._bounds[self._rows]]

    def shorten(self) -> None:
        """Notes that rows may have lost positions; one that is empty stays so."""
        self._exact[self._rows] = [bound == 0 for bound in self._bounds[self._rows]]

    def mix(self) -> None:
        """Notes that rows may have taken over the lengths of others."""
        if not self.level:
            self._bounds[self._rows] = [self.bound] * len(self._bounds[self._rows])
            self.shorten()
