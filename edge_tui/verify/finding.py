"""Holds how a strategy compared with one reference, and writes tables of it. Loads no torch."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from edge_tui import __version__

if TYPE_CHECKING:
    from edge_tui.verify.outcome import Comparison

HEADER = ("strategy", "reference", "cases", "ties", "difference", "")
_WIDTHS = (47, 7, 5, 18, 12)
"""Columns after the first."""
_FAULTS = 3
"""Most faults that are shown of one finding."""


@dataclass(slots=True)
class Finding:
    """Sums up the comparison of one strategy with one reference.

    Attributes:
        strategy: Its name.
        reference: The reference's name.
        cases: Cases compared.
        ties: Cases in which only tokens at the very edge of a cut differ.
        difference: The largest relative difference of a logit; of draws, the largest χ².
        limit: The limit of that χ²; None where logits are compared.
        faults: A sentence for each case that differs.
        disagreements: Sentences about known differences.
    """

    strategy: str
    reference: str
    cases: int = 0
    ties: int = 0
    difference: float = 0.0
    limit: float | None = None
    faults: list[str] = field(default_factory=list)
    disagreements: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """True where a case differs by more than rounding."""
        return bool(self.faults)

    @classmethod
    def of(
        cls, strategy: str, reference: str, comparison: Comparison, disagreements: tuple[str, ...] = ()
    ) -> Finding:
        """Makes a finding of a comparison."""
        counts = comparison.cases, comparison.ties, comparison.difference
        return cls(strategy, reference, *counts, None, comparison.faults, disagreements)

    def add_chi_squared(self, found: float, limit: float, case: str) -> None:
        """Adds one χ²; the one closest to its limit is kept."""
        self.cases += 1
        if not self.limit or found / limit > self.difference / self.limit:
            self.difference, self.limit = found, limit
        if found > limit:
            self.faults.append(f"{case}: χ² is {found:.1f}, above {limit:.1f}.")

    def cells(self) -> tuple[str, ...]:
        """Writes the finding as the cells of a table."""
        difference, verdict = f"{self.difference:.1e}" if self.cases else "", "ok"
        if self.limit is not None:
            difference = f"χ² {self.difference:.1f} < {self.limit:.1f}"
        if self.failed:
            difference, verdict = "", f"{len(self.faults):,} differ"
        return (self.strategy, self.reference, f"{self.cases:,}", f"{self.ties:,}", difference, verdict)

    def sentences(self) -> list[str]:
        """Lists the first faults, then the known disagreements."""
        return [*self.faults[:_FAULTS], *self.disagreements]

    def as_dict(self) -> dict[str, Any]:
        """Gives the fields for JSON."""
        return asdict(self)


def table_line(cells: Sequence[str], name_width: int) -> str:
    """Aligns cells below those of other findings, which come one by one."""
    widths = (name_width, *_WIDTHS)
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def manifest() -> dict[str, Any]:
    """Names what computed, for JSON: versions and processor."""
    packages = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {
        "edge-tui": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **packages,
    }
