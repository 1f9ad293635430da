"""A figure is a number worked out from measured rows, beside what it must reach and what it aims at."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from edge_tui.bench.edge_runner import NAME, prompt_ids
from edge_tui.bench.job import BenchError, Job
from edge_tui.bench.session import Session
from edge_tui.bench.speed import Row, measure
from edge_tui.engine.port import Precision


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should be.

    Attributes:
        figure: Its name.
        unit: Of the value; "×" is a ratio.
        must, aim: Bounds; no aim where None.
        value: Works it out from what was measured.
        least: Whether the bounds are lower ones.
    """

    figure: str
    unit: str
    must: float
    aim: float | None
    value: Callable[[Book], float]
    least: bool = True

    def verdict(self, value: float) -> str:
        """How a measured value stands."""

        def reaches(bound: float) -> bool:
            return value >= bound if self.least else value <= bound

        if self.aim is not None and reaches(self.aim):
            return "aim reached"
        return "reached" if reaches(self.must) else "missed"

    def bound(self, value: float | None) -> str:
        """A bound as the table shows it."""
        return "–" if value is None else f"{'≥' if self.least else '≤'} {value:,g} {self.unit}".strip()


class Book:
    """The rows measured so far, and the figures worked out of them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._rows: list[Row] = []
        self.values: dict[str, float] = {}

    def measure(self, model: str, precision: Precision, jobs: Sequence[Job], **options: Any) -> None:
        """Measures a model, invented unless it is of the demo pair; see `edge_tui.bench.speed.measure`."""
        second = options.pop("second", None)
        self._rows += measure(
            self.session,
            self.session.target(model, not model.startswith("demo/")),
            precision,
            jobs,
            second=self.session.target(second, True) if second else None,
            **options,
        )

    def row(self, model: str, precision: str, strategy: str, who: str = NAME, prompt: int = 0) -> Row:
        """The latest row of a kind.

        Raises:
            BenchError: there is none.
        """
        for row in reversed(self._rows):
            same = (row.model.removesuffix(" (random)"), row.precision, row.strategy, row.who)
            if same == (model, precision, strategy, who) and (not prompt or abs(row.prompt - prompt) < 64):
                return row
        raise BenchError(f"{model}, {precision}, {strategy}, {who} was not measured.")

    def enter(self, goal: Goal, *, known: bool = True) -> None:
        """Works a figure out and keeps it; without its rows, or before they are `known`, it has none."""
        try:
            value = goal.value(self) if known else None
        except BenchError:
            value = None
        record = {
            "figure": goal.figure,
            "value": value,
            "unit": goal.unit,
            "must": goal.bound(goal.must),
            "aim": goal.bound(goal.aim),
            "verdict": "not measured" if value is None else goal.verdict(value),
        }
        figures: list[dict[str, Any]] = self.session.ledger.head.setdefault("figures", [])
        place = next((i for i, old in enumerate(figures) if old["figure"] == goal.figure), len(figures))
        figures[place : place + 1] = [record]
        self.session.ledger.save()

    def noted(self, name: str) -> float:
        """A value that is no row's, by the name it was kept under.

        Raises:
            BenchError: there is none.
        """
        if name not in self.values:
            raise BenchError(f"{name} was not measured.")
        return self.values[name]

    def start(self, model: str) -> None:
        """Notes the seconds from `load` to the first token at full speed, beyond making the weights.

        The model is loaded, used, freed and loaded again: the second time, with kernels cached, counts.
        """
        session = self.session
        target = session.target(model, True)
        ours = session.ours(target, "bfloat16")
        try:
            job = Job("greedy", tokens=64)
            tokenizer = ours.load().tokenizer
            ours.run(job, prompt_ids(tokenizer, job.prompt, 0))
            ours.unload()
            began = time.perf_counter()
            facts = ours.load()
            loading = time.perf_counter() - began
            cold = ours.run(job, prompt_ids(tokenizer, job.prompt, 1))
            steady = ours.run(job, prompt_ids(tokenizer, job.prompt, 2))
            once = max(0.0, cold.decode - steady.decode)
            self.values[f"start {model}"] = loading - facts.making + cold.first + once
        finally:
            ours.close()
            session.free()
