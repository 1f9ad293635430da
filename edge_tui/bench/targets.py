"""Measures the figures that the engine must reach: `edge-tui bench figures`; `bench.scenarios` lists them.

Each scenario measures the rows of some figures; one that fails costs its own figures only, and a figure that
the time or the device did not allow is reported as not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_tui.bench.edge_runner import NAME
from edge_tui.bench.goal import Goal
from edge_tui.bench.job import Job
from edge_tui.bench.session import Session
from edge_tui.bench.speed import measure
from edge_tui.engine.models.device_memory import release_cached_memory
from edge_tui.util import logs

BF16: Any = "bfloat16"
GREEDY = Job("greedy")
Options = Mapping[str, Any]


class FigureTable:
    """Measures rows, and works figures out of them.

    Attributes:
        session: Of the bench; the rows are in its results.
        values: Measurements that are no row's, by name.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.values: dict[str, float] = {}
        self._figures: dict[str, dict[str, Any]] = {}

    def measure(self, model: str, precision: Any, *jobs: Job, second: str = "", **options: Any) -> None:
        """Measures a model, with random weights unless it is a demo model; options as of `speed.measure`."""
        first = self.session.model(model, not model.startswith("demo/"))
        other = self.session.model(second, True) if second else None
        measure(self.session, first, precision, jobs, second=other, **options)

    def row(
        self, model: str, precision: str = BF16, job: Job = GREEDY, who: str = NAME, prompt: int = 0
    ) -> dict[str, Any]:
        """Finds the latest row of a kind.

        Raises:
            LookupError: there is none.
        """
        row: dict[str, Any]
        for row in reversed(self.session.results.rows):
            same = (row["model"].removesuffix(" (random)"), row["precision"], row["strategy"], row["who"])
            if same == (model, precision, job.title, who) and (
                not prompt or abs(row["prompt"] - prompt) < 64
            ):
                return row
        raise LookupError(f"{model}, {precision}, {job.title}, {who} was not measured.")

    def step(self, model: str, precision: str = BF16, job: Job = GREEDY) -> float:
        """Finds the seconds of a step.

        Raises:
            LookupError: it was not measured.
        """
        return float(self.row(model, precision, job, prompt=job.prompt)["step"])

    def record(self, goal: Goal, work_out: Figure | None) -> None:
        """Works a figure out and saves it; without `work_out` or its rows it has no value."""
        try:
            value = None if work_out is None else work_out(self)
        except LookupError:
            value = None
        self._figures[goal.figure] = goal.row(value)
        self.session.results.head["figures"] = list(self._figures.values())
        self.session.results.save()


Figure = Callable[[FigureTable], float]
Work = Callable[[FigureTable, Options], None]


@dataclass(frozen=True, slots=True)
class Scenario:
    """Groups measurements with the figures worked out of them.

    Attributes:
        name: For `--only` and progress.
        work: Measures.
        figures: Work each figure out.
        device: "cuda" or "cpu": where it belongs.
    """

    name: str
    work: Work
    figures: Mapping[Goal, Figure]
    device: str = "cuda"


def run(
    session: Session, all_scenarios: Sequence[Scenario], *, rounds: int, seconds: float, only: str = ""
) -> None:
    """Measures the figures of the session's device; those of another are not measured.

    Args:
        session: Of the bench.
        all_scenarios: In the order of measuring.
        rounds: Counted decodes of each contestant.
        seconds: Most time for one decode.
        only: Scenarios whose name holds this text; figures of others are left out.
    """
    table = FigureTable(session)
    here = session.device.partition(":")[0]
    chosen = [scenario for scenario in all_scenarios if only.lower() in scenario.name.lower()]
    for scenario in chosen:
        for goal in scenario.figures:
            table.record(goal, None)
    scenarios = [scenario for scenario in chosen if scenario.device == here]
    session.progress.total = len(scenarios)
    for scenario in scenarios:
        try:
            with session.attempt(scenario.name, scenario.name) as has_time:
                if not has_time:
                    continue
                scenario.work(table, {"rounds": rounds, "seconds": seconds})
        except Exception as error:  # one scenario must not cost the others
            session.results.note(f"{scenario.name} failed with {logs.summary(error)}")
        release_cached_memory()
        for goal, work_out in scenario.figures.items():
            table.record(goal, work_out)
