"""Compares a measured value with the bounds that it must and should reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """Holds the bounds of a figure.

    Attributes:
        figure: Its name.
        unit: Of the value; "×" is a ratio.
        must, aim: Bounds; no aim where None.
        at_least: True if the bounds are lower ones.
    """

    figure: str
    unit: str
    must: float
    aim: float | None = None
    at_least: bool = True

    def verdict(self, value: float) -> str:
        """Names the highest bound that a value reaches."""

        def reaches(bound: float) -> bool:
            return value >= bound if self.at_least else value <= bound

        if self.aim is not None and reaches(self.aim):
            return "aim reached"
        return "reached" if reaches(self.must) else "missed"

    def bound(self, value: float | None) -> str:
        """Formats a bound for the table."""
        return "–" if value is None else f"{'≥' if self.at_least else '≤'} {value:,g} {self.unit}".strip()

    def row(self, value: float | None) -> dict[str, Any]:
        """Makes the figure's row of the table; without a value it was not measured."""
        return {
            "figure": self.figure,
            "value": value,
            "unit": self.unit,
            "must": self.bound(self.must),
            "aim": self.bound(self.aim),
            "verdict": "not measured" if value is None else self.verdict(value),
        }
