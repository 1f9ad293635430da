"""Every scenario of the figures measures what its figures need, on tiny models."""

from __future__ import annotations

import re
from math import isfinite
from pathlib import Path

import pytest

from edge_tui.bench import app, scenarios, start, targets
from edge_tui.bench.goal import Goal
from edge_tui.bench.random_models import CONFIGS
from edge_tui.bench.transformers_runner import KINDS

OPTIONS = {"rounds": 1, "seconds": 0.05}


SCENARIOS = [each for each in scenarios.SCENARIOS if each.device == "cuda" and each.name != "screen"]
"""The screen is left out: it starts the app in a terminal of its own."""
NARROW = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "head_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CHOICE = ("greedy 0.5B", "7B 4bit", "speculative")
"""Scenarios with peers, with figures of two runs, and with a second model."""


@pytest.mark.parametrize(
    "scenario",
    [pytest.param(each, marks=() if each.name in CHOICE else pytest.mark.proof) for each in SCENARIOS],
    ids=lambda each: each.name,
)
def test_each_scenario_gives_its_figures(scenario, session, monkeypatch):
    for name in (scenarios.SMALL, scenarios.MIDDLE, scenarios.LARGE):
        monkeypatch.setitem(CONFIGS, name, CONFIGS["tiny"])
    for name in (*scenarios.FAMILIES, scenarios.MIXTURE, "hunyuan-0.5b", "hunyuan-7b"):
        config, tokens = CONFIGS[name]
        monkeypatch.setitem(CONFIGS, name, (config | NARROW, tokens))
    table = targets.FigureTable(session)
    if scenario.name in ("7B 4bit", "7B int8"):
        table.measure(scenarios.LARGE, targets.BF16, targets.GREEDY, **OPTIONS)
    monkeypatch.setattr(start, "CASES", start.CASES[:2])  # each starts processes
    if scenario.name == "greedy 0.5B":  # compiling takes half a minute
        measure = targets.FigureTable.measure
        monkeypatch.setattr(
            targets.FigureTable, "measure", lambda *a, peers=(), **o: measure(*a, peers=("eager",), **o)
        )
        monkeypatch.setitem(KINDS, "eager", scenarios.STATIC)
    scenario.work(table, OPTIONS)
    assert [note for note in session.results.notes if "were accepted" not in note] == []
    for goal, work_out in scenario.figures.items():
        if scenario.name != "start":
            assert isfinite(work_out(table)), goal.figure
        table.record(goal, work_out)
    recorded = session.results.head["figures"]
    assert [f["figure"] for f in recorded] == [goal.figure for goal in scenario.figures]


def test_the_scenarios_asked_for_are_measured_and_no_other_is_in_the_table(session):
    measured = []

    def scenario(name: str, device: str) -> targets.Scenario:
        figures = {Goal(f"figure of {name}", "×", 1): lambda _: 2.0}
        return targets.Scenario(name, lambda *_: measured.append(name), figures, device)

    some = [scenario("CPU one", "cpu"), scenario("one", "cuda"), scenario("two", "cpu")]
    targets.run(session, some, rounds=1, seconds=0.05, only="ONE")
    assert measured == ["CPU one"]
    table = {each["figure"]: each["verdict"] for each in session.results.head["figures"]}
    assert table == {"figure of CPU one": "reached", "figure of one": "not measured"}


def test_the_document_names_every_scenario():
    text = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    _, _, text = text.partition("`--only TEXT` measures")
    listed = re.findall(r"`([^`]+)`", text.partition(". A figure")[0].replace("`--device cpu`", ""))
    assert [each.replace("\n", " ") for each in listed] == [each.name for each in scenarios.SCENARIOS]


def test_a_figure_without_rows_is_not_measured(session):
    def missing(table: targets.FigureTable) -> float:
        raise LookupError("nothing")

    targets.FigureTable(session).record(Goal("x", "×", 1, 2), missing)
    assert session.results.head["figures"][0]["verdict"] == "not measured"


def test_verdicts_and_bounds():
    more = Goal("x", "tok/s", 1200, 2200)
    assert [more.verdict(v) for v in (1199, 1200, 2200)] == ["missed", "reached", "aim reached"]
    less = Goal("y", "ms", 1.0, 0.8, at_least=False)
    assert [less.verdict(v) for v in (1.01, 1.0, 0.8)] == ["missed", "reached", "aim reached"]
    assert more.bound(1200) == "≥ 1,200 tok/s"
    assert less.bound(None) == "–"


@pytest.mark.proof
def test_rounds_in_the_app_alternate_with_headless_ones():
    result = app.measure(2, "tiny")
    assert {kind: len(rates) for kind, rates in result["rates"].items()} == {"headless": 2, "streamed": 2}
    assert app.ratio(result["rates"]) > 0
