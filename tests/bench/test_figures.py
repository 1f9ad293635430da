"""Every scenario of the figures measures what its figures need, on tiny models."""

from __future__ import annotations

from math import inf, isfinite

import pytest

from edge_tui.bench import targets
from edge_tui.bench.figure_table import Book, Goal
from edge_tui.bench.job import BenchError


@pytest.mark.parametrize(
    "scenario", [s for s in targets.SCENARIOS if s.device == "cuda"], ids=lambda s: s.name
)
def test_each_scenario_gives_its_figures(scenario, session, monkeypatch):
    monkeypatch.setattr(targets, "SMALL", "tiny")
    monkeypatch.setattr(targets, "LARGE", "tiny")
    monkeypatch.setattr(targets, "MIDDLE", "tiny")
    book = Book(session)
    if scenario.name in ("7B 4bit", "7B int8"):
        targets._large(book, {"rounds": 1, "seconds": 0.05})
    if scenario.name == "greedy 0.5B":  # compiling takes half a minute
        measure = Book.measure
        monkeypatch.setattr(Book, "measure", lambda *a, peers=(), **o: measure(*a, peers=("eager",), **o))
        monkeypatch.setattr(targets, "STATIC", targets.EAGER)
    if scenario.name == "screen":
        pytest.skip("starts the app in a terminal of its own: tests/tui measure that")
    scenario.work(book, {"rounds": 1, "seconds": 0.05})
    assert [note for note in session.ledger.notes if "were accepted" not in note] == []
    for goal in scenario.goals:
        if scenario.name != "start":
            assert isfinite(goal.value(book)), goal.figure
        book.enter(goal)
    entered = session.ledger.head["figures"]
    assert [f["figure"] for f in entered] == [g.figure for g in scenario.goals]


def test_a_figure_without_rows_is_not_measured(session):
    def missing(book: Book) -> float:
        raise BenchError("nothing")

    Book(session).enter(Goal("x", "×", 1, 2, missing))
    assert session.ledger.head["figures"][0]["verdict"] == "not measured"


def test_verdicts_and_bounds():
    more = Goal("x", "tok/s", 1200, 2200, lambda book: inf)
    assert [more.verdict(v) for v in (1199, 1200, 2200)] == ["missed", "reached", "aim reached"]
    less = Goal("y", "ms", 1.0, 0.8, lambda book: inf, least=False)
    assert [less.verdict(v) for v in (1.01, 1.0, 0.8)] == ["missed", "reached", "aim reached"]
    assert more.bound(1200) == "≥ 1,200 tok/s"
    assert less.bound(None) == "–"
