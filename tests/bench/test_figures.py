"""Every scenario of the figures measures what its figures need, on tiny models."""

from __future__ import annotations

from math import isfinite

import pytest

from edge_tui.bench import targets
from edge_tui.bench.figure_table import FigureTable
from edge_tui.bench.goal import Goal
from edge_tui.bench.job import BenchError
from edge_tui.bench.random_models import CONFIGS

OPTIONS = {"rounds": 1, "seconds": 0.05}


@pytest.mark.parametrize(
    "scenario", [s for s in targets.SCENARIOS if s.device == "cuda"], ids=lambda s: s.name
)
def test_each_scenario_gives_its_figures(scenario, session, monkeypatch):
    for name in (targets.SMALL, targets.MIDDLE, targets.LARGE):
        monkeypatch.setitem(CONFIGS, name, CONFIGS["tiny"])
    table = FigureTable(session)
    if scenario.name in ("7B 4bit", "7B int8"):
        next(s for s in targets.SCENARIOS if s.name == "7B").work(table, OPTIONS)
    if scenario.name == "greedy 0.5B":  # compiling takes half a minute
        measure = FigureTable.measure
        monkeypatch.setattr(
            FigureTable, "measure", lambda *a, peers=(), **o: measure(*a, peers=("eager",), **o)
        )
        monkeypatch.setattr(targets, "STATIC", targets.EAGER)
    if scenario.name == "screen":
        pytest.skip("starts the app in a terminal of its own: tests/tui measure that")
    scenario.work(table, OPTIONS)
    assert [note for note in session.results.notes if "were accepted" not in note] == []
    for goal, work_out in scenario.figures.items():
        if scenario.name != "start":
            assert isfinite(work_out(table)), goal.figure
        table.record(goal, work_out)
    recorded = session.results.head["figures"]
    assert [f["figure"] for f in recorded] == [goal.figure for goal in scenario.figures]


def test_a_figure_without_rows_is_not_measured(session):
    def missing(table: FigureTable) -> float:
        raise BenchError("nothing")

    FigureTable(session).record(Goal("x", "×", 1, 2), missing)
    assert session.results.head["figures"][0]["verdict"] == "not measured"


def test_verdicts_and_bounds():
    more = Goal("x", "tok/s", 1200, 2200)
    assert [more.verdict(v) for v in (1199, 1200, 2200)] == ["missed", "reached", "aim reached"]
    less = Goal("y", "ms", 1.0, 0.8, at_least=False)
    assert [less.verdict(v) for v in (1.01, 1.0, 0.8)] == ["missed", "reached", "aim reached"]
    assert more.bound(1200) == "≥ 1,200 tok/s"
    assert less.bound(None) == "–"
