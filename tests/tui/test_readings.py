"""Prompts that are read beside the runs: the newest wins, and nothing of them reaches the panes."""

from __future__ import annotations

from edge_tui.engine.events import Died, Loaded, Loading
from edge_tui.engine.port import Request
from tests.tui.parts import session
from tests.tui.prompts import ReadingEngine

PARTS = [("a", "user"), ("b", "user")]
REQUEST = Request("ab", max_length=1, prompt_logps=True)


def test_a_reading_is_no_run() -> None:
    shown = session(ReadingEngine(PARTS))
    reading = shown.readings.read(REQUEST)
    assert shown.pump() == []
    assert (reading.active, shown.run, shown.busy) == (False, None, False)
    assert reading.prompt is not None
    assert reading.prompt.text == ("a", "b")
    assert reading.first is not None


def test_the_same_prompt_is_read_once() -> None:
    engine = ReadingEngine(PARTS)
    shown = session(engine)
    first = shown.readings.read(REQUEST)
    assert shown.readings.read(REQUEST) is first, "while it is read"
    shown.pump()
    assert shown.readings.read(REQUEST) is first, "and afterwards"
    assert engine.requests == [REQUEST]
    shown.readings.read(Request("other", prompt_logps=True))
    assert len(engine.requests) == 2


def test_another_model_reads_again() -> None:
    engine = ReadingEngine(PARTS)
    shown = session(engine)
    first = shown.readings.read(REQUEST)
    shown.pump()
    engine.load("model")
    assert any(isinstance(event, Loaded) for event in shown.pump())
    assert shown.readings.read(REQUEST) is not first


def test_a_failed_reading_is_tried_again() -> None:
    engine = ReadingEngine(PARTS)
    engine.failure = "The message is empty."
    shown = session(engine)
    first = shown.readings.read(REQUEST)
    assert shown.pump() == [], "the screen that asked says so"
    assert first.failed is not None
    engine.failure = ""
    again = shown.readings.read(REQUEST)
    shown.pump()
    assert again.prompt is not None


def test_a_model_that_cannot_be_loaded_for_a_reading_is_not_loading_any_more() -> None:
    engine = ReadingEngine(PARTS)
    engine.waits = True
    engine.failure = "The model cannot be loaded."
    shown = session(engine)
    shown.readings.read(REQUEST)
    engine.events.append(Loading("expert", "big"))
    shown.pump()
    assert shown.loading
    engine.tell()
    shown.pump()
    assert not shown.loading


def test_a_reading_gives_way_to_the_next_and_what_comes_late_is_dropped() -> None:
    engine = ReadingEngine(PARTS)
    engine.waits = True
    shown = session(engine)
    first = shown.readings.read(REQUEST)
    second = shown.readings.read(Request("other", prompt_logps=True))
    assert engine.cancelled == [1]
    engine.tell()
    assert shown.pump() == []
    assert shown.readings.current is second
    assert not second.active
    assert first.prompt is not None, "its events are its own"


def test_leaving_stops_what_goes_on_and_keeps_what_has_ended() -> None:
    engine = ReadingEngine(PARTS)
    shown = session(engine)
    ended = shown.readings.read(REQUEST)
    shown.pump()
    shown.readings.leave()
    assert shown.readings.read(REQUEST) is ended
    engine.waits = True
    shown.readings.read(Request("other", prompt_logps=True))
    shown.readings.leave()
    assert engine.cancelled == [2]
    assert shown.readings.current is None


def test_another_engine_reads_what_waits() -> None:
    engine = ReadingEngine(PARTS)
    engine.waits = True
    shown = session(engine)
    reading = shown.readings.read(REQUEST)
    other = ReadingEngine(PARTS)
    shown.attach(other)  # type: ignore[arg-type]
    shown.pump()
    assert other.requests == [REQUEST]
    assert reading.prompt is not None


def test_a_dead_engine_ends_its_reading() -> None:
    engine = ReadingEngine(PARTS)
    engine.waits = True
    shown = session(engine)
    reading = shown.readings.read(REQUEST)
    engine.events.append(Died("It stopped."))
    assert [type(event) for event in shown.pump() if isinstance(event, Died)] == [Died]
    assert not reading.active
