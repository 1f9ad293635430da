"""Writing while it streams: nothing is lost but the last moments, whatever happens to the process."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest

from edge_tui.engine.events import Died, Failed, Finished
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.history import live_run, schema
from edge_tui.history.recorder import Recorder
from edge_tui.history.restore import recover, transcript_of
from edge_tui.history.store import Store
from edge_tui.transcript.transcript import Transcript
from tests.history.runs import LOADED, WORDS, ScriptedEngine, batch, finished, started
from tests.waiting import until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def recorder(path: Path) -> Iterator[Recorder]:
    made = Recorder(lambda: Store(path))
    yield made
    made.close(60.0)


def test_a_run_is_written_although_nobody_polls(recorder: Recorder, path: Path) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    run = engine.submit(Request("Why?"))
    inner.tell(run)
    store = until(recorder.reader)
    until(lambda: [e.state for e in store.runs()] == ["finished"])
    (entry,) = store.runs()
    assert entry.uid == engine.uid(run)
    assert entry.model == LOADED.name
    stored = store.load(entry.id)
    assert transcript_of(stored).text == "".join(WORDS)
    assert [(c.name, c.value, c.index) for c in stored.changes] == [("top_p", 0.5, len(WORDS) // 2)]
    assert stored.versions["python"]
    assert [type(event).__name__ for event in engine.poll()][-1] == "Finished"
    assert engine.poll() == []


def test_a_reading_of_a_prompt_is_no_run(recorder: Recorder) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    reading = engine.submit(Request("Why?", prompt_logps=True))
    inner.tell(reading)
    run = engine.submit(Request("Why?"))
    inner.tell(run)
    store = until(recorder.reader)
    until(lambda: store.runs())
    assert [entry.uid for entry in store.runs()] == [engine.uid(run)]
    assert engine.uid(reading) == ""
    assert {getattr(event, "run", None) for event in engine.poll()} >= {reading, run}


def test_alternatives_can_be_read_without_the_model(recorder: Recorder) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    inner.tell(engine.submit(Request("Why?")))
    store = until(recorder.reader)
    ids = set(batch(WORDS, run=1).top_ids.ravel().tolist())
    until(lambda: ids <= store.token_string_ids(LOADED.name))
    assert store.token_strings(LOADED.name)[min(ids)] == f"<{min(ids)}>"


def test_who_leaves_at_once_keeps_the_texts_of_alternatives(recorder: Recorder, path: Path) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    inner.tell(engine.submit(Request("Why?")), WORDS * 4)
    engine.close()
    assert recorder.close(60.0)
    ids = set(batch(WORDS * 4, run=1).top_ids.ravel().tolist())
    assert len(ids) > 256
    with closing(Store(path)) as store:
        assert ids <= store.token_string_ids(LOADED.name)


def test_every_batch_is_committed_before_the_next_comes(recorder: Recorder) -> None:
    """At the next look at the engine, which the recorder takes every 30 ms while a run is under way."""
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    inner.say(started(engine.submit(Request("Why?"))))
    store = until(recorder.reader)
    for i in range(5):
        inner.say(batch(["x "], i))
        until(lambda n=i: [entry.tokens for entry in store.runs()] == [n + 1])


def test_small_chunks_become_large_ones(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_run, "CHUNK", 4)
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    run = engine.submit(Request("Why?"))
    inner.say(started(run))
    store = until(recorder.reader)
    until(store.runs)
    for i in range(10):
        inner.say(batch([f"{i} "], i, run=run))
        until(lambda n=i: store.runs()[0].tokens == n + 1)
    inner.say(finished(run, 10))
    until(lambda: store.runs()[0].state == "finished")
    stored = store.load(store.runs()[0].id)
    assert [len(each) for each in stored.batches] == [4, 4, 2]
    assert transcript_of(stored).text == "".join(f"{i} " for i in range(10))
    assert stored.entry.tokens == 10


def test_runs_without_a_token_leave_nothing(recorder: Recorder) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    store = until(recorder.reader)
    first, second = engine.submit(Request("a")), engine.submit(Request("b"))
    inner.say(started(first), finished(first, 0, "cancelled"), Failed("It is too long.", second))
    third = engine.submit(Request("c"))
    inner.tell(third)
    until(lambda: [e.prompt for e in store.runs() if e.state != "running"] == ["c"])
    until(lambda: len(store.runs()) == 1)


def test_what_failed_half_way_keeps_its_tokens_and_says_why(recorder: Recorder) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    run = engine.submit(Request("a"))
    inner.say(started(run), batch(WORDS), Failed("The device ran out of memory.", run))
    store = until(recorder.reader)
    until(lambda: [e.state for e in store.runs()] == ["failed"])
    stored = store.load(store.runs()[0].id)
    assert stored.message == "The device ran out of memory."
    assert transcript_of(stored).text == "".join(WORDS)


@pytest.mark.parametrize("late", [False, True])
def test_tokens_taken_over_stay_with_the_run_that_took_them(recorder: Recorder, late: bool) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    store = until(recorder.reader)
    old = Transcript(started())
    old.extend(batch(WORDS))
    prefix = old.ids(4)
    run = engine.submit(Request("a", prefix=prefix))
    new = Transcript(started(run, 4), old, prefix)
    kept = new.prefix_batch()
    assert kept is not None
    own = batch(["and ", "so "], 4, run=run)
    if late:
        inner.say(started(run, 4), own, finished(run, 2))
        until(lambda: [e.state for e in store.runs()] == ["finished"])
        recorder.append_prefix(run, kept, new.changes)
    else:
        inner.say(started(run, 4), own)
        recorder.append_prefix(run, kept, new.changes)
        inner.say(finished(run, 2))
    until(lambda: [(e.state, e.tokens) for e in store.runs()] == [("finished", 6)])
    transcript = transcript_of(store.load(store.runs()[0].id))
    assert transcript.text == "".join([*WORDS[:4], "and ", "so "])
    assert transcript.token(2) == old.token(2)
    until(lambda: store.runs()[0].answer == "the sky is blue and so")


def test_an_engine_that_dies_leaves_interrupted_runs_and_a_new_one_begins_anew(recorder: Recorder) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    run = engine.submit(Request("a"))
    inner.tell(run, end=False)
    inner.say(Died("It stopped."))
    store = until(recorder.reader)
    until(lambda: [e.state for e in store.runs()] == ["interrupted"])
    other = ScriptedEngine()
    engine = recorder.record(other)
    assert engine.submit(Request("b")) == run
    other.tell(run, WORDS[:2])
    until(lambda: next((e.prompt, e.state) for e in store.runs()) == ("b", "finished"))


def test_leaving_in_the_middle_of_a_run_is_an_interruption(recorder: Recorder, path: Path) -> None:
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    run = engine.submit(Request("a"))
    inner.tell(run, end=False)
    inner.close = lambda timeout=1.0: bool(inner.say(finished(run, 11, "cancelled"))) or True  # type: ignore[method-assign]
    engine.close()
    assert recorder.close(60.0)
    store = Store(path)
    assert [(e.state, e.tokens) for e in store.runs()] == [("running", len(WORDS))]


def test_a_full_disk_is_said_once_and_stops_nothing(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Store, "append_chunk", full)
    inner = ScriptedEngine()
    engine = recorder.record(inner)
    inner.tell(engine.submit(Request("a")))
    until(lambda: "disk is full" in recorder.problem)
    engine.poll()
    inner.say(finished(2))
    assert len(engine.poll()) == 1
    assert recorder.close(60.0)


def test_another_instance_that_holds_the_lock_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "BUSY_SECONDS", 0.01)
    attempts = []

    class Impatient(Store):
        def transaction(self, begin: str = "BEGIN IMMEDIATE") -> AbstractContextManager[None]:
            attempts.append(begin)
            return super().transaction(begin)

    recorder, inner = Recorder(lambda: Impatient(path)), ScriptedEngine()
    engine = recorder.record(inner)
    store = until(recorder.reader)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    attempts.clear()
    inner.tell(engine.submit(Request("a")))
    until(lambda: len(attempts) > 2)
    assert not store.runs()
    other.execute("COMMIT")
    until(lambda: [e.tokens for e in store.runs()] == [len(WORDS)])
    assert not recorder.problem
    assert recorder.close(60.0)


_CHILD = """
import sys, time
from pathlib import Path
from edge_tui.engine.port import Request
from edge_tui.history.recorder import Recorder
from edge_tui.history.store import Store
from tests.history.runs import ScriptedEngine, batch, started

inner = ScriptedEngine()
engine = Recorder(lambda: Store(Path(sys.argv[1]))).record(inner)
inner.say(started(engine.submit(Request("Count."))))
i = 0
while True:
    inner.say(batch([f"{i} "], i))
    i += 1
    time.sleep(0.001)
"""


def test_kill_9_loses_nothing_that_was_committed(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(path)])
    store = Store(path)
    committed = until(lambda: [entry.tokens for entry in store.runs() if entry.tokens > 60], 60)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    (run,) = recover(store, time.time())
    transcript = transcript_of(store.load(run))
    assert len(transcript) >= committed[0]
    assert transcript.text.split() == [str(i) for i in range(len(transcript))]


@pytest.mark.proof
def test_a_killed_decode_goes_on_where_it_was(path: Path, tmp_path: Path) -> None:
    code = """
import sys, time
from pathlib import Path
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.history.recorder import Recorder
from edge_tui.history.store import Store
engine = Recorder(lambda: Store(Path(sys.argv[1]))).record(LocalEngine({"model": ModelSpec("demo/expert")}))
engine.submit(Request("def f(x):", strategy="greedy", max_length=200))
while True:
    time.sleep(0.01)
"""
    child = subprocess.Popen([sys.executable, "-c", code, str(path)])
    store = Store(path)
    until(lambda: store.runs() and store.runs()[0].tokens > 20, 60)
    child.kill()
    child.wait()
    (run,) = recover(store, time.time())
    stored = store.load(run)
    kept = transcript_of(stored).ids()
    engine = LocalEngine({"model": ModelSpec("demo/expert")})
    try:
        wanted = run_to_end(engine, Request("def f(x):", strategy="greedy", max_length=len(kept) + 20))
        request = Request("def f(x):", strategy="greedy", max_length=20, prefix=kept)
        assert kept + run_to_end(engine, request) == wanted
    finally:
        engine.close(60.0)


def run_to_end(engine: LocalEngine, request: Request) -> tuple[int, ...]:
    engine.submit(request)
    ids: list[int] = []
    while True:
        for event in engine.poll():
            if hasattr(event, "top_ids"):
                ids += event.id.tolist()  # type: ignore[union-attr]
            if isinstance(event, Finished):
                return tuple(ids)
            assert not isinstance(event, Failed)
        time.sleep(0.005)
