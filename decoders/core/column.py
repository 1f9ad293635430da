"""Declares the numbers that a strategy records for each token, and how they are shown. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isnan

ROLES = ("", "sum", "score", "parent", "token", "ended")
"""Roles of columns; `Column.role` describes them."""
BEAM_ROLES: Mapping[str, str] = {
    "score": "sum",
    "finished": "score",
    "finished_parent": "parent",
    "finished_id": "token",
    "over": "ended",
}
"""Roles of names that older strategy files and records of searches gave without one."""


@dataclass(frozen=True, slots=True)
class Column:
    """Declares one number that is recorded for each token."""

    name: str
    """Unique within a strategy; its key in records, files and HTTP."""
    help: str = ""
    """One line: the thing that is measured, with its unit."""
    choices: tuple[str, ...] = ()
    """Words for the numbers 0, 1, …"""
    low: float | None = None
    high: float | None = None
    """Bounds of its values, if there are any."""
    role: str = ""
    """One of `ROLES`; faces show one that they do not know as a plain number.

    "sum": Σ log p of the live hypothesis that ends in this token. "score": the final score of a hypothesis
    that ended at this step, recorded with any row, NaN for none; "parent" is then the row of the step before
    that it continues, and "token" its last one. "token" alone: the id of a token. Of both −1 is none.
    "ended": 1 once the search has ended.
    """

    def text(self, value: float) -> str:
        """Writes a value as the user reads it."""
        if isnan(value):
            return "n/a"
        if value in range(len(self.choices)):
            return self.choices[int(value)]
        return f"{value:.3g}"

    def fact(self, value: float, quoted: Callable[[int], str]) -> str:
        """Writes a value as `text` does, but ids as their token and rows from 1; "" where there is none.

        Args:
            value: The value; NaN, and −1 of a row or an id, is none.
            quoted: Writes the token of an id.
        """
        if isnan(value) or (self.role in ("parent", "token") and value < 0):
            return ""
        if self.role == "parent":
            return f"row {value + 1:.0f}"
        return quoted(int(value)) if self.role == "token" else self.text(value)

    def description(self) -> str:
        """Writes its help and its bounds; "" where neither is known."""
        limits = ""
        if self.low is not None and self.high is not None:
            limits = f"{self.low:g} to {self.high:g}"
        elif self.low is not None:
            limits = f"{self.low:g} or more"
        elif self.high is not None:
            limits = f"{self.high:g} or less"
        return " ".join(filter(None, (self.help, limits and f"({limits})")))


def as_columns(
    declared: Iterable[str | Column], roles: Mapping[str, str] | None = None
) -> tuple[Column, ...]:
    """Makes columns of names, whose roles are those of `roles`; columns stay as they are."""
    known = roles or {}
    return tuple(
        each if isinstance(each, Column) else Column(each, role=known.get(each, "")) for each in declared
    )


def names_of(declared: Iterable[str | Column]) -> tuple[str, ...]:
    """Lists the names of columns."""
    return tuple(column.name for column in as_columns(declared))


def repeated(names: Iterable[str]) -> str:
    """Finds a name that is there twice; "" for none."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""
