"""Works figures out of measured rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edge_tui.bench.edge_runner import NAME
from edge_tui.bench.goal import Goal
from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.session import Session
from edge_tui.bench.speed import Row, measure
from edge_tui.engine.port import Precision


class FigureTable:
    """Collects measured rows, and the figures worked out of them.

    Attributes:
        session: Of the bench.
        values: Measurements that are no row's, by name.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.values: dict[str, float] = {}
        self._rows: list[Row] = []
        self._figures: dict[str, dict[str, Any]] = {}

    def measure(self, model: str, precision: Precision, jobs: Sequence[Job], **options: Any) -> None:
        """Measures a model, with random weights unless it is a demo model; options as of `speed.measure`."""
        second = options.pop("second", None)
        self._rows += measure(
            self.session,
            self.session.model(model, not model.startswith("demo/")),
            precision,
            jobs,
            second=self.session.model(second, True) if second else None,
            **options,
        )

    def row(self, model: str, precision: str, strategy: str, who: str = NAME, prompt: int = 0) -> Row:
        """Finds the latest row of a kind.

        Raises:
            BenchError: there is none.
        """
        for row in reversed(self._rows):
            same = (row.model.removesuffix(" (random)"), row.precision, row.strategy, row.who)
            if same == (model, precision, strategy, who) and (not prompt or abs(row.prompt - prompt) < 64):
                return row
        raise BenchError(f"{model}, {precision}, {strategy}, {who} was not measured.")

    def value(self, name: str) -> float:
        """Finds a measurement that is no row's.

        Raises:
            BenchError: there is none.
        """
        if name not in self.values:
            raise BenchError(f"{name} was not measured.")
        return self.values[name]

    def record(self, goal: Goal, work_out: Callable[[FigureTable], float] | None) -> None:
        """Works a figure out and saves it; without `work_out` or its rows it has no value."""
        try:
            value = None if work_out is None else work_out(self)
        except BenchError:
            value = None
        self._figures[goal.figure] = goal.row(value)
        self.session.results.head["figures"] = list(self._figures.values())
        self.session.results.save()
