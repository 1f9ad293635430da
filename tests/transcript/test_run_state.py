"""Events fold into the state of a run and of its engine."""

from __future__ import annotations

from dataclasses import replace

from edge_tui.engine.events import (
    Died,
    Event,
    Failed,
    FirstToken,
    Loading,
    Noticed,
    Progress,
    Unloaded,
)
from edge_tui.transcript.run_state import EngineState, RunState
from tests.history.runs import LOADED, WORDS, batch, finished, started


def test_a_run_goes_through_its_stages() -> None:
    state, phases = RunState(), []
    news: list[Event] = [
        started(prefix=4), Progress("prefill", 512, 2048, run=1), FirstToken(1, 0.25),
        batch(WORDS[:3], 4), Noticed(1, "It repeats."), finished(n=3),
    ]  # fmt: skip
    for event in news:
        state.apply(event)
        phases.append(state.phase)
    assert phases == ["reading", "reading", "reading", "decoding", "decoding", "done"]
    assert (state.read, state.first_token, state.steps) == ((512, 2048), 0.25, 3)
    assert state.notices == ["It repeats."]
    assert state.finished is news[-1]
    assert not state.active


def test_a_run_that_is_being_stopped_is_so_until_its_end() -> None:
    state = RunState()
    state.phase = "stopping"
    state.apply(started())
    state.apply(batch(WORDS))
    assert state.phase == "stopping"
    state.apply(Failed("It broke.", 1))
    assert (state.phase, state.failed) == ("failed", Failed("It broke.", 1))


def test_a_death_fails_what_has_not_ended() -> None:
    active, done = RunState(), RunState()
    done.apply(finished())
    for state in (active, done):
        state.apply(Died("Gone."))
    assert (active.phase, done.phase) == ("failed", "done")


def test_models_load_and_go() -> None:
    state = EngineState()
    for event in (Loading("model", "a"), Loading("draft", "b"), Progress("load", 3, 9, "a")):
        state.apply(event)
    assert state.loading == {"model": ("a", 3, 9), "draft": ("b", 0, 0)}
    state.apply(LOADED)
    state.apply(Failed("b does not fit."))
    assert (list(state.loaded), state.loading) == (["model"], {})
    assert state.model_for("expert") is LOADED
    assert state.model_for("draft") is None
    expert = replace(LOADED, role="expert", name="other")
    state.apply(expert)
    assert state.model_for("expert") is expert
    state.apply(Unloaded(("expert",), "other", 2, 1))
    assert state.model_for("expert") is LOADED
    state.apply(Died("Gone."))
    assert (state.loaded, state.dead) == ({}, "Gone.")
