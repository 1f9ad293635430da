"""Strategies that are chosen with their values, without a screen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_tui import decoders
from edge_tui.config import presets
from edge_tui.decoders import Problem
from edge_tui.engine.events import Failed, Resolved
from edge_tui.engine.port import Request
from edge_tui.tui.run_params import ParamPatch
from edge_tui.tui.workbench import strategy_controller
from edge_tui.tui.workbench.strategy_controller import StrategyController
from tests.tui.engines import PictureEngine
from tests.tui.parts import Field, Panel, View, session, settings


class Choosing:
    """A controller with what stands around it."""

    def __init__(self, held: bool = False) -> None:
        self.engine = PictureEngine()
        self.engine.held = held
        self.session, self.field, self.view = session(self.engine), Field("Why?"), View()
        self.panel = Panel()
        self.values = settings()
        self.started: list[Request] = []
        self.strategies = StrategyController(
            self.session, self.values, self.field, self.view, self.panel, self.started.append
        )

    def run(self) -> None:
        self.session.start(self.values.request("Why?", seed=7))
        self.pump()

    def pump(self) -> None:
        for event in self.session.pump():
            self.strategies.apply(event)

    @property
    def said(self) -> str:
        return self.view.said[-1]


@pytest.fixture
def choosing() -> Choosing:
    return Choosing()


def test_before_a_run_a_choice_only_chooses(choosing: Choosing) -> None:
    choosing.strategies.choose_number(2)
    assert choosing.values.decoder is choosing.strategies.decoders[1]
    assert choosing.started == []
    choosing.strategies.choose_number(999)
    choosing.strategies.choose(None)
    assert choosing.values.decoder is choosing.strategies.decoders[1]


def test_a_prompt_that_runs_or_has_just_run_runs_again_with_its_seed() -> None:
    for held in (False, True):
        choosing = Choosing(held)
        choosing.run()
        assert choosing.session.busy is held
        choosing.strategies.choose("greedy")
        (request,) = choosing.started
        assert (request.strategy, request.prompt, request.seed) == ("greedy", "Why?", 7)
        choosing.strategies.choose("greedy")
        assert len(choosing.started) == 1, "it is that strategy already"


def test_what_was_stopped_or_rewritten_waits(choosing: Choosing) -> None:
    choosing.run()
    choosing.field.text = "Why? And how?"
    choosing.strategies.choose("greedy")
    assert "^j runs it" in choosing.said
    stopped = Choosing(held=True)
    stopped.run()
    stopped.session.stop()
    stopped.pump()
    stopped.strategies.choose("greedy")
    assert "r runs the prompt again with its seed" in stopped.said
    assert choosing.started == stopped.started == []


def test_what_the_engine_refuses_is_not_chosen(choosing: Choosing) -> None:
    choosing.engine.refusals = {"beam": "That server has no beams."}
    choosing.engine.load("model")
    choosing.pump()
    assert choosing.view.refusals == {"beam": "That server has no beams."}
    choosing.strategies.choose("beam")
    assert choosing.said == "That server has no beams."
    assert choosing.values.decoder.name == "top_p"


def test_a_preset_is_saved_and_taken_again(choosing: Choosing, home: Path) -> None:
    choosing.values.set("temperature", 0.33)
    choosing.values.set("system", "Be brief.")
    assert choosing.strategies.describe_values() == "top_p: temperature 0.33"
    choosing.strategies.save_preset(None)
    choosing.strategies.save_preset("My own")
    (mine,) = [each for each in presets.load()[0] if each.own]
    assert (mine.title, mine.parameters, mine.system) == ("My own", {"temperature": 0.33}, "Be brief.")
    choosing.values.reset("temperature")
    choosing.strategies.choose("greedy")
    choosing.strategies.take_preset(None)
    choosing.strategies.take_preset(replace(mine, prompt="Begin:"))
    assert choosing.field.text == "Begin:"
    assert choosing.values.request("x").values["temperature"] == 0.33
    assert choosing.said == "My own: ctrl+j runs the prompt with it."


def test_values_that_a_strategy_does_not_have_are_named(choosing: Choosing) -> None:
    assert not choosing.strategies.take_values("greedy", ParamPatch({"frob": 1.0}))
    assert "does not take frob" in choosing.said
    assert not choosing.strategies.take_values("nobody", ParamPatch({}))
    assert choosing.view.kind == "error"
    assert choosing.values.decoder.name == "greedy"


def test_a_run_teaches_its_values_until_another_model_comes_and_that_its_strategy_works(
    choosing: Choosing, monkeypatch: pytest.MonkeyPatch
) -> None:
    working: list[object] = []
    monkeypatch.setattr(decoders.current(), "mark_working", working.append)
    choosing.run()
    run = choosing.session.run
    assert run is not None
    assert run.started is not None
    assert working == [run.decoder] == [choosing.values.decoder]
    temperature = choosing.values.param("temperature")
    assert temperature is not None
    choosing.strategies.apply(replace(run.started, values={"temperature": Resolved(0.6, "checkpoint")}))
    assert choosing.values.value(temperature) == (0.6, "checkpoint")
    choosing.strategies.apply(choosing.session.loaded["model"])
    assert choosing.values.value(temperature) == (1.0, "default")


def test_a_refused_value_is_shown_at_its_field(choosing: Choosing) -> None:
    choosing.strategies.apply(Failed("temperature is -1.", field="temperature"))
    assert choosing.view.refused == {"temperature": "temperature is -1."}


def test_a_step_that_fails_shows_the_file_and_goes_back_to_the_version_before(
    choosing: Choosing, monkeypatch: pytest.MonkeyPatch
) -> None:
    choosing.run()
    reverted: list[object] = []
    monkeypatch.setattr(decoders.current(), "revert", lambda decoder: reverted.append(decoder) or True)
    run = choosing.session.run
    assert run is not None
    problem = Problem("top_a.py", 3, "It is wrong.")
    choosing.strategies.apply(Failed("It is wrong.", run=run.id, problem=problem))
    assert choosing.panel.problem is problem
    assert choosing.panel.reverted
    assert reverted == [run.decoder]
    choosing.run()
    assert choosing.panel.problem is None, "another run has begun"


def test_strategies_that_go_give_way_and_stop(choosing: Choosing, monkeypatch: pytest.MonkeyPatch) -> None:
    choosing.engine.held = True
    choosing.run()
    left = [each for each in decoders.strategies() if each.name != "top_p"]
    monkeypatch.setattr(decoders, "strategies", lambda: left)
    monkeypatch.setattr(strategy_controller, "find", {each.name: each for each in left}.get)
    choosing.strategies.apply_strategies({Path("mine.py")})
    assert choosing.engine.cancelled == [1]
    assert choosing.values.decoder is left[0]
    assert choosing.said.startswith("mine.py was read again: r runs")


def test_a_typed_chain_is_chosen_and_outlives_a_reload(choosing: Choosing) -> None:
    choosing.strategies.choose("min-p+temperature")
    assert choosing.values.decoder is decoders.find("min_p+temperature")
    choosing.run()
    assert choosing.session.run is not None
    assert choosing.session.run.decoder is choosing.values.decoder
    choosing.strategies.apply_strategies({Path("mine.py")})
    assert choosing.values.decoder.name == "min_p+temperature"
    choosing.strategies.choose("min_p+foo")
    assert (choosing.said[:31], choosing.view.kind) == ("There is no stage 'foo' for a c", "warning")
    assert choosing.values.decoder.name == "min_p+temperature"


def test_a_chain_is_refused_with_the_engines_reason(choosing: Choosing) -> None:
    choosing.session.attach(choosing.engine)  # type: ignore[arg-type]
    choosing.engine.refusals["min_p+temperature"] = "There is no stage min_p."
    choosing.strategies.choose("min_p+temperature")
    assert choosing.said == "There is no stage min_p."
    assert choosing.values.decoder.name == "top_p"


def test_a_preset_holds_a_chain(choosing: Choosing, home: Path) -> None:
    choosing.strategies.choose("top_k+temperature+top_k#2")
    choosing.values.set("top_k_2", 3)
    choosing.strategies.save_preset("Twice")
    choosing.strategies.choose("greedy")
    (preset,) = [each for each in presets.load()[0] if each.name == "twice"]
    choosing.strategies.take_preset(preset)
    assert choosing.values.decoder.name == "top_k+temperature+top_k#2"
    assert choosing.values.request("a").values == {"top_k_2": 3}
