"""Runs that are started, continued, repeated and reopened, without a screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_tui.engine.events import ParamChanged, Progress
from edge_tui.engine.port import Message, Request
from edge_tui.history.store import Store
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.session import Session
from edge_tui.tui.stored_runs import read_turns
from edge_tui.tui.workbench.run_controller import RunController
from tests.history.runs import batch, started
from tests.tui import kept
from tests.tui.engines import WORDS, PictureEngine, ticking
from tests.tui.parts import Field, View, session, settings


class Turns:
    """No conversation."""

    def __init__(self) -> None:
        self.talk: Any = None

    def turn_position(self, request: Request) -> None:
        return None

    def resume(self, talk: Any) -> None:
        self.talk = talk


class Running:
    """A controller with what stands around it."""

    def __init__(self, held: bool = False, made: Session | None = None) -> None:
        self.engine = PictureEngine()
        self.engine.held = held
        self.session = made or session(self.engine)
        self.field, self.view, self.turns, self.values = Field(), View(), Turns(), settings()
        self.taken: list[Any] = []
        self.runs = RunController(
            self.session, self.values, self.field, self.view, self.turns, self.take_values
        )

    def take_values(self, strategy: str, patch: Any) -> bool:
        self.taken += [strategy, patch]
        return True

    def run(self, prompt: str = "Why?") -> None:
        self.runs.start(self.values.request(prompt))
        self.pump()

    def pump(self) -> None:
        for event in self.session.pump():
            self.runs.apply(event)
        run = self.session.run
        self.view.transcript = run.transcript if run is not None else None

    @property
    def said(self) -> str:
        return self.view.said[-1]


@pytest.fixture
def running() -> Running:
    return Running()


def test_a_run_says_how_it_began_and_how_it_went(running: Running) -> None:
    running.run(" \n ")
    assert [request.prompt for request in running.engine.requests] == [" \n "]
    assert "follow" in running.view.calls
    began, ended = running.view.said
    assert began == "top_p · seed 7 · at most 256 tokens"
    assert f"{len(WORDS):,} tokens" in ended
    assert "seed 7" in ended
    assert running.view.kind == "good"


def test_what_is_read_from_an_earlier_run_is_said(running: Running) -> None:
    running.run()
    run = running.session.run
    assert run is not None
    assert run.started is not None
    began = replace(run.started, reused_tokens=6)
    running.runs.apply(began)
    assert running.said.endswith("6 of 9 prompt tokens reused")
    run.started = began
    assert run.finished is not None
    running.runs.apply(run.finished)
    assert "6 reused" in running.said


def test_a_prompt_waits_for_the_engine(running: Running) -> None:
    waiting = Running(made=Session(ticking()))
    waiting.run()
    assert waiting.said == "Queued: the engine is starting."
    waiting.session.attach(waiting.engine)  # type: ignore[arg-type]
    waiting.pump()
    assert len(waiting.engine.requests) == 1


def test_of_many_runs_in_a_row_the_last_begins_once_the_first_has_wound_down() -> None:
    running = Running(held=True)
    running.run()
    for strategy in ("greedy", "min_p", "beam"):
        running.values.decoder = settings(strategy).decoder
        running.runs.repeat()
    assert running.said == "Queued: the run in progress is stopping."
    assert running.session.state() == ("stopping", "busy")
    running.pump()
    assert running.engine.cancelled == [1]
    assert [request.strategy for request in running.engine.requests] == ["top_p", "beam"]


def test_a_run_says_how_many_kernels_it_waits_for() -> None:
    running = Running(held=True)
    running.run()
    run = running.session.run
    assert run is not None
    run.phase = "queued"
    for done, words in ((0, "compiling kernels, 0 of 2"), (1, "compiling kernels, 1 of 2"), (2, "queued")):
        run.apply(Progress("compile", done, 2, run=run.id))
        assert running.session.state() == (words, "busy")


def test_it_goes_on_from_its_last_token_and_from_another_one() -> None:
    running = Running(held=True)
    running.runs.resume()
    assert "nothing to continue" in running.said
    running.run()
    running.runs.resume()
    assert running.said == "It is still running."
    running.session.stop()
    running.pump()
    run = running.session.run
    assert run is not None
    assert run.transcript is not None
    ids = run.transcript.ids()
    running.runs.resume()
    running.pump()
    assert running.engine.requests[1].prefix == ids
    assert running.view.transcript.token(3).raw_logp == run.transcript.token(3).raw_logp
    running.session.stop()
    running.pump()
    running.runs.take_alternative(3, 9)
    assert running.engine.requests[2].prefix == (*ids[:3], 9)
    assert {request.seed for request in running.engine.requests[1:]} == {run.seed}


def test_a_run_of_several_samples_goes_on_from_the_first_whose_seed_is_the_runs(running: Running) -> None:
    running.run()
    run = running.session.run
    assert run is not None
    tokens = batch(WORDS[:9], rows=3)
    run.started = started(rows=3)
    run.transcript = running.view.transcript = Transcript(run.started)
    run.transcript.extend(replace(tokens, parent=tokens.row))
    running.runs.take_alternative(2, 9)
    request = running.engine.requests[-1]
    assert request.prefix == (*tokens.id[[0, 3]].tolist(), 9)
    assert (request.seed, request.samples) == (run.started.seed, 1)


def test_the_token_in_the_text_is_no_alternative(running: Running) -> None:
    running.run()
    run = running.session.run
    assert run is not None
    assert run.transcript is not None
    running.runs.take_alternative(3, run.transcript.ids()[3])
    assert running.said.startswith("This token is the one in the text")
    assert len(running.engine.requests) == 1


def test_what_is_pointed_at_must_still_be_shown(running: Running) -> None:
    running.run()
    running.view.transcript = None
    running.runs.take_alternative(3, 9)
    assert len(running.engine.requests) == 1


def test_an_answer_that_ended_is_not_gone_on_from(running: Running) -> None:
    running.run()
    running.runs.resume()
    assert "ended its answer" in running.said


def test_tokens_of_another_model_are_not_gone_on_from(running: Running) -> None:
    running.run()
    running.session.loaded["model"] = replace(running.session.loaded["model"], name="other")
    running.runs.take_alternative(3, 9)
    assert "wrote this: load it (m)" in running.said
    assert len(running.engine.requests) == 1


def test_it_repeats_with_its_seed_or_another(running: Running) -> None:
    assert not running.runs.repeat()
    running.run()
    assert running.runs.repeat()
    running.pump()
    assert running.runs.repeat(8)
    assert [request.seed for request in running.engine.requests[1:]] == [7, 8]


def test_a_value_reaches_the_run_that_has_the_parameter() -> None:
    running = Running(held=True)
    running.run()
    running.values.set("top_p", 0.5)
    (fixed,) = [param.name for param in running.values.decoder.params if not param.live]
    for key in ("top_p", fixed, "max_length", "system"):
        running.runs.send_value(key)
    assert running.engine.turned == [(1, "top_p", 0.5)]
    running.values.decoder = settings("greedy").decoder
    running.runs.send_value("repetition_penalty")
    assert len(running.engine.turned) == 1, "that run has another strategy"


@pytest.fixture
def stored(home: Any) -> Store:
    kept.fill()
    return Store(kept.default_path())


def test_a_stored_run_comes_back_with_its_tokens(running: Running, stored: Store) -> None:
    running.runs.reopen(read_turns(stored, 1), again=False)
    run = running.view.looked_at
    assert run.transcript.text == "".join(WORDS)
    assert (run.phase, run.model) == ("done", "some/model")
    assert running.field.text == kept.PROMPTS[0]
    assert running.taken[0] == "top_p"
    assert running.said == "Written by some/model; load that with m to go on from its last token."


def test_a_stored_run_is_run_again_with_its_seed(running: Running, stored: Store) -> None:
    running.runs.reopen(read_turns(stored, 1), again=True)
    (request,) = running.engine.requests
    assert (request.prompt, request.seed, request.prefix) == (kept.PROMPTS[0], 7, ())
    assert running.said.startswith("It was some/model then")


def test_a_stored_run_has_the_values_of_its_last_token_and_runs_again_with_those_of_its_first(
    running: Running, stored: Store
) -> None:
    stored.append_changes(1, [ParamChanged(1, "temperature", 0.4, 1, 2)])
    for again in (False, True):
        running.runs.reopen(read_turns(stored, 1), again)
    _, at_end, _, at_start = running.taken
    assert (at_end.values, at_end.mode) == ({"temperature": 0.4}, "custom")
    assert at_start.values == {}


def test_a_run_in_progress_is_found_again(stored: Store) -> None:
    running = Running(held=True)
    running.run()
    run = running.session.run
    assert run is not None
    run.uid = stored.entry(1).uid
    running.runs.reopen(read_turns(stored, 1), again=False)
    assert running.view.looked_at is run
    running.runs.reopen(read_turns(stored, 2), again=False)
    assert "o leads back to it" in running.said


def test_a_stored_conversation_comes_back_with_its_answers(running: Running, home: Any) -> None:
    store = Store(kept.default_path())
    runs = [kept.add(store, Request(kept.conversation(n)), kept.NOON + n, f"{n:016x}") for n in (1, 2)]
    store.set_turn(runs[1], "talk", 1, f"{1:016x}")
    running.runs.reopen(read_turns(store, runs[1]), again=False)
    talk = running.turns.talk
    assert [exchange.prompt for exchange in talk.exchanges] == list(kept.PROMPTS[:2])
    assert [exchange.tokens for exchange in talk.exchanges] == [len(WORDS)] * 2
    assert running.view.looked_at is talk.exchanges[1].run
    changed = (*kept.conversation(1), Message("assistant", "No."), Message("user", "Why not?"))
    other = kept.add(store, Request(changed), kept.NOON + 9, f"{9:016x}")
    store.set_turn(other, "talk", 1, f"{1:016x}")
    running.runs.reopen(read_turns(store, other), again=False)
    first = running.turns.talk.exchanges[0]
    assert (first.answer, first.run) == ("No.", None), "that answer has no tokens"
