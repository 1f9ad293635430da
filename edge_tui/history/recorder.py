"""Records runs while they stream: a queue of jobs, and the thread that writes them.

`live_run` buffers a run's tokens, `store` holds the SQL.

A `RecordingEngine` stands between an engine and its face and hands every event to the recorder. The thread
polls too, so that tokens reach the disk while a face is stuck behind a slow terminal. From a token's arrival
to its commit pass 30 ms and the time of one small transaction; a committed token survives the process.
"""

from __future__ import annotations

import secrets
import sqlite3
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.engine import events
from edge_tui.history.live_run import LiveRun
from edge_tui.history.restore import transcript_of
from edge_tui.history.schema import HistoryError
from edge_tui.transcript.run_state import EngineState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Event, ParamChanged, Started, TokenBatch
    from edge_tui.engine.port import Engine, Request
    from edge_tui.history.runs import State
    from edge_tui.history.store import Store

PERIOD = 0.030
"""Seconds between looks at the engine while a run is under way."""
_HEARTBEAT = 20.0
"""Seconds between heartbeats of a run that writes nothing yet."""
_TRANSIENT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Another process writes; nothing was begun."""
_IDS_AT_ONCE = 256
"""Ids that are decoded in one job: more would keep other threads from the interpreter."""


class Recorder:
    """Writes the runs of an engine to the history.

    Args:
        open_store: Opens the history; called in the recorder's thread.
        interrupt_on_exit: A run that our own exit cancels counts as interrupted, to be offered at the next
            start; else as stopped.
    """

    def __init__(self, open_store: Callable[[], Store], *, interrupt_on_exit: bool = True) -> None:
        self._open = open_store
        self._interrupt_on_exit = interrupt_on_exit
        self._store: Store | None = None
        self._engine: RecordingEngine | None = None
        self._jobs: deque[Callable[[Store], None]] = deque()
        self._live: dict[int, LiveRun] = {}
        self._models = EngineState()
        self._past: dict[int, int] = {}
        """The store's numbers of ended runs, by the engine's."""
        self._last_heartbeat = 0.0
        self._wake = threading.Event()
        self._opened = threading.Event()
        self._closing = False
        self._accepts_jobs = True
        self._exiting = False
        self._was_rebuilt = False
        self.problem = ""
        """Why the history is not (or no longer) written, "" while it is."""
        self._thread = threading.Thread(target=self._work, name="history", daemon=True)

    def record(self, engine: Engine) -> RecordingEngine:
        """Wraps an engine whose runs are to be written; the one before has died."""
        recording = RecordingEngine(engine, self)
        if self._engine is None:
            self._thread.start()
        else:
            self._do(self._interrupt_all)
        self._engine, self._exiting = recording, False
        return recording

    def reader(self) -> Store | None:
        """Opens the history for reading, beside the writing; None without one. Waits until it is open.

        Raises:
            HistoryError, sqlite3.Error, OSError: it was there, and is not any more.
        """
        self._opened.wait(2.0)
        store = self._store
        if store is None or not store.is_persistent or store.path is None:
            return store
        return type(store)(store.path)

    def close(self, timeout: float = 1.0) -> bool:
        """Writes what is left; True if that was done within `timeout` seconds."""
        self._closing = True
        self._wake.set()
        if self._engine is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # From any thread.

    def insert_run(self, run: int, request: Request) -> str:
        """Adds a run of the engine; returns its uid."""
        live = LiveRun(secrets.token_hex(8), time.time(), request)

        def write(store: Store) -> None:
            live.insert(store)
            self._live[run] = live

        self._do(write)
        return live.uid

    def append_prefix(self, run: int, prefix: TokenBatch, changes: Sequence[ParamChanged]) -> None:
        """Adds the tokens that a run continues, and the changes of parameters while they came."""

        def write(store: Store) -> None:
            if (live := self._live.get(run)) is not None:
                live.append_prefix(store, prefix)
                store.append_changes(live.id, changes)
            elif (ended := self._past.get(run)) is not None:
                store.append_prefix(ended, prefix)
                store.append_changes(ended, changes)
                stored = store.load(ended)
                answer = transcript_of(stored).text
                store.finish_run(ended, stored.entry.state, answer, stored.finished, stored.message)

        self._do(write)

    def set_turn(self, run: int, conversation: str, turn: int, parent: str) -> None:
        """Makes a run a turn of a conversation."""

        def write(store: Store) -> None:
            if (number := self._live[run].id if run in self._live else self._past.get(run)) is not None:
                store.set_turn(number, conversation, turn, parent)

        self._do(write)

    def uid(self, run: int) -> str:
        """Returns the name of a run of the present engine."""
        return self._engine.uid(run) if self._engine is not None else ""

    def begin_exit(self) -> None:
        """Declares that cancellations from now on come from our exit."""
        self._exiting = self._interrupt_on_exit

    def append_events(self, news: Sequence[Event]) -> None:
        """Adds what the engine reported."""

        def write(store: Store) -> None:
            for event in news:
                self._apply(store, event)

        self._do(write)

    def _do(self, job: Callable[[Store], None]) -> None:
        if self._accepts_jobs:
            self._jobs.append(job)
            self._wake.set()

    # In the recorder's thread.

    def _work(self) -> None:
        try:
            self._write_until_closed()
        except Exception as error:
            self._give_up(f"The history stopped ({type(error).__name__}); new runs are not kept.")
            raise

    def _write_until_closed(self) -> None:
        """Opens the history and writes what arrives until `close`; the recorder thread's function."""
        try:
            self._store = store = self._open()
        except (HistoryError, sqlite3.Error, OSError) as error:
            self._give_up(f"Runs are not kept: {error}")
            return
        self.problem = store.problem
        self._opened.set()
        while True:
            closing = self._closing
            self._wake.clear()
            if self._engine is not None:
                self._engine.drain()
            try:
                self._write(store)
            except (sqlite3.Error, HistoryError) as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _TRANSIENT:
                    if (fresh := self._rebuild(store, error)) is not None:
                        store = fresh
                        continue
                    # Full, or broken under our hands. What is there already will be found again.
                    self._give_up(f"The history cannot be written ({error}); new runs are not kept.")
                    break
            if closing and not self._jobs:
                break
            if self._live or self._jobs:
                time.sleep(PERIOD)
            else:
                self._wake.wait()
        store.close()

    def _rebuild(self, store: Store, error: Exception) -> Store | None:
        """Saves what can be read of a history that turns out to be damaged; None where that cannot be."""
        from edge_tui.history.salvage import is_damage, rebuild

        if store.path is None or self._was_rebuilt or not is_damage(error):
            return None
        self._was_rebuilt = True  # what breaks twice does so for a reason that no copy removes
        store.close()
        try:
            self._store = fresh = rebuild(store.path)
            for live in self._live.values():
                live.move(fresh)
        except (sqlite3.Error, HistoryError, OSError):
            return None
        self._past.clear()  # their numbers were those of the old file
        self.problem = fresh.problem
        return fresh

    def _give_up(self, problem: str) -> None:
        self._accepts_jobs = False
        self._jobs.clear()
        self.problem = problem
        self._opened.set()

    def _write(self, store: Store) -> None:
        now = time.time()
        heartbeat_is_due = now - self._last_heartbeat > _HEARTBEAT
        if not self._jobs and not heartbeat_is_due:
            return  # tokens come as jobs as well
        with store.transaction():
            for _ in range(len(self._jobs)):  # jobs that these add wait for the next round
                self._jobs.popleft()(store)
            for live in self._live.values():
                live.flush(store)
            if self._live and heartbeat_is_due:
                self._last_heartbeat = now
                store.heartbeat([live.id for live in self._live.values()], now)

    def _apply(self, store: Store, event: Event) -> None:
        """Writes an event of the engine."""
        self._models.apply(event)
        if isinstance(event, events.Died):
            self._interrupt_all(store)
            return
        run = getattr(event, "run", None) or 0
        if (live := self._live.get(run)) is None:
            return
        live.apply(event)
        match event:
            case events.Started():
                self._start(store, live, event)
            case events.TokenBatch():
                if len(event):
                    live.batches.append(event)
            case events.ParamChanged():
                store.append_changes(live.id, [event])
            case events.Finished() | events.Failed():
                self._end(store, run)

    def _start(self, store: Store, live: LiveRun, started: Started) -> None:
        roles: tuple[str, ...] = ("model",)
        files: dict[str, str] = {}
        with suppress(decoders.UnknownStrategy):
            decoder = decoders.find(started.strategy)
            roles, files = decoder.roles, decoders.current().file_versions(decoder)
        models = {role: model for role in roles if (model := self._models.model_for(role)) is not None}
        live.model = next(iter(models.values())).name if models else ""
        store.set_started(live.id, replace(started, notices=()), models, {**versions(), **files})

    def _end(self, store: Store, run: int) -> None:
        """Ends a run.

        One without tokens is removed, unless a strategy is at fault: its author will look at the run.
        """
        live = self._live.pop(run)
        live.flush(store)
        live.merge_chunks(store)
        finished, failed = live.finished, live.failed
        if not live.tokens and (failed is None or failed.problem is None):
            store.delete(live.id)
            return
        if self._exiting and finished is not None and finished.reason == "cancelled":
            return  # still under way, as far as the next start is concerned
        self._past[run] = live.id
        state: State = "failed" if failed else "finished" if finished else "interrupted"
        store.finish_run(live.id, state, live.answer(store), finished, failed.message if failed else "")
        unknown = sorted(live.token_ids - store.token_string_ids(live.model))
        self._jobs.append(lambda store: self._add_token_strings(store, live.model, unknown))

    def _add_token_strings(self, store: Store, model: str, unknown: list[int]) -> None:
        """Decodes ids while their tokenizer is there: a few at a time, the rest at once on the way out."""
        loaded = self._models.loaded
        main = loaded.get("model") or next(iter(loaded.values()), None)
        if not unknown or self._engine is None or main is None or main.name != model:
            return
        count = len(unknown) if self._closing else _IDS_AT_ONCE
        now, later = unknown[:count], unknown[count:]
        store.add_token_strings(model, dict(zip(now, self._engine.decode(now), strict=False)))
        self._jobs.append(lambda store: self._add_token_strings(store, model, later))

    def _interrupt_all(self, store: Store) -> None:
        """Ends all runs: their engine is gone."""
        for run in list(self._live):
            self._end(store, run)
        self._past.clear()
        self._models.reset()


class RecordingEngine:
    """Passes each event to the recorder and to the caller of `poll`; otherwise the engine as it is.

    Args:
        inner: The engine.
        recorder: Writes the events.
    """

    def __init__(self, inner: Engine, recorder: Recorder) -> None:
        self._inner = inner
        self._recorder = recorder
        self._waiting: list[Event] = []
        self._lock = threading.Lock()
        self._uids: dict[int, str] = {}
        self.set, self.cancel, self.decode, self.count = inner.set, inner.cancel, inner.decode, inner.count
        self.assign, self.load, self.unload = inner.assign, inner.load, inner.unload
        self.refusal, self.memory, self.alive = inner.refusal, inner.memory, inner.alive
        self.explain, self.ids = inner.explain, inner.ids

    def drain(self) -> None:
        """Takes the engine's events, for the recorder and for the next `poll`."""
        # Order matters: two threads that drain must not overtake each other.
        with self._lock:
            if news := self._inner.poll():
                self._waiting.extend(news)
                self._recorder.append_events(news)

    def poll(self) -> list[Event]:
        """Returns the engine's events once the recorder has them too."""
        self.drain()
        with self._lock:
            news, self._waiting = self._waiting, []
        return news

    def submit(self, request: Request, beside: int | None = None) -> int:
        """Submits a run, and adds it to the history before its first event; not one that reads a prompt."""
        # The engine may report on the run before we know its number.
        with self._lock:
            run = self._inner.submit(request, beside)
            if not request.prompt_logps:
                self._uids[run] = self._recorder.insert_run(run, request)
        return run

    def uid(self, run: int) -> str:
        """Returns the name of a run in the history."""
        return self._uids.get(run, "")

    def close(self, timeout: float = 1.0) -> bool:
        """Closes the engine and records the last events as those of our exit."""
        self._recorder.begin_exit()
        closed = self._inner.close(timeout)
        self.drain()
        return closed


@cache
def versions() -> dict[str, str]:
    """Reads the versions of the programs that take part in a run."""
    from importlib.metadata import PackageNotFoundError, version

    from edge_tui import __version__

    versions = {"edge-tui": __version__, "python": sys.version.split()[0]}
    for name in ("torch", "transformers", "triton"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def recorder_of(settings: Settings, *, interrupt_on_exit: bool = True) -> Recorder | None:
    """Returns a recorder of the user's history, or None where the settings switch it off."""
    if not settings.history.keep:
        return None
    from edge_tui.history.salvage import open_store
    from edge_tui.history.schema import default_path

    return Recorder(lambda: open_store(default_path()), interrupt_on_exit=interrupt_on_exit)
