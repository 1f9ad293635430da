"""Writes runs while they stream, from a thread of its own.

Between an engine and its face stands a `Recorded` engine: whatever is polled through it is noted as well.
The thread polls too, so that tokens reach the disk while a face is stuck behind a slow terminal. From a
token's arrival to its commit pass 30 ms and the time of one small transaction; what is committed survives
the process.
"""

from __future__ import annotations

import secrets
import sqlite3
import sys
import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edge_tui.engine import events
from edge_tui.history import columns
from edge_tui.history.restore import transcript_of
from edge_tui.history.schema import HistoryError
from edge_tui.transcript.transcript import Change

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Event, Finished, Loaded, TokenBatch
    from edge_tui.engine.port import Engine, Memory, ModelSpec, Request
    from edge_tui.history.runs import State
    from edge_tui.history.store import Store

PERIOD = 0.030
"""Seconds between looks at the engine while a run is under way."""
CHUNK = 1024
"""Records after which small chunks become one: few rows, good compression, bounded memory."""
_REMEMBERED = 64
"""Runs that have ended, of which more may still be said."""
_BEAT = 20.0
"""Seconds between signs of life of a run that writes nothing yet."""
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""Another process writes; nothing was begun."""
_PIECES = 256
"""Ids whose texts are asked for at a time, so that nobody waits for the interpreter."""


@dataclass(slots=True)
class _Live:
    """A run that is being written.

    Attributes:
        uid: Its name, whatever becomes of it.
        id: Its number in the store; None until the store knows it.
        batches: What came since the last write.
        small: What the chunks hold that are not yet joined.
        loose: How many tokens that are.
        number: Of the next chunk.
        texts: Of a single row, as much as has been written.
        ids: bool `[n]`, which tokens it chose or could have chosen.
    """

    uid: str
    created: float
    request: Request
    id: int | None = None
    rows: int = 1
    model: str = ""
    batches: list[TokenBatch] = field(default_factory=list)
    small: list[TokenBatch] = field(default_factory=list)
    loose: int = 0
    number: int = 0
    tokens: int = 0
    texts: list[str] = field(default_factory=list)
    ids: Any = None

    def move(self, store: Store) -> None:
        """Goes on in another store, which may hold the run's beginning."""
        entry = store.find(self.uid)
        self.id = entry.id if entry is not None else store.begin(self.uid, self.created, self.request)
        self.number = len(store.load(self.id).batches)
        self.small.clear()
        self.loose = 0


class Recorder:
    """Keeps what runs on an engine.

    Args:
        open_store: Opens the history; called in the recorder's thread.
        offers: Whether a run that our own leaving cuts off counts as interrupted, rather than stopped.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        offers: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._open = open_store
        self._offers = offers
        self._clock = clock
        self._store: Store | None = None
        self._engine: Recorded | None = None
        self._jobs: deque[Callable[[Store], None]] = deque()
        self._live: dict[int, _Live] = {}
        self._loaded: dict[str, Loaded] = {}
        self._ended: OrderedDict[int, int] = OrderedDict()
        self._beat = 0.0
        self._wake = threading.Event()
        self._opened = threading.Event()
        self._closing = False
        self._writing = True
        self._versions: dict[str, str] = {}
        self._leaving = False
        self._mended = False
        self.problem = ""
        """Why the history is not (or no longer) written, "" while it is."""
        self._thread = threading.Thread(target=self._work, name="history", daemon=True)

    def record(self, engine: Engine) -> Recorded:
        """Listens to an engine from now on; one that was listened to before has died."""
        recorded = Recorded(engine, self)
        if self._engine is None:
            self._thread.start()
        else:
            self._do(self._break_off)
        self._engine, self._leaving = recorded, False
        return recorded

    def reader(self, timeout: float = 2.0) -> Store | None:
        """The history for reading, beside the writing; None where there is none. Waits until it is open.

        Raises:
            HistoryError, sqlite3.Error, OSError: it was there, and is not any more.
        """
        self._opened.wait(timeout)
        store = self._store
        if store is None or not store.lasting or store.path is None:
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

    def submitted(self, run: int, request: Request) -> str:
        """A run was asked for; returns its uid."""
        live = _Live(secrets.token_hex(8), self._clock(), request)
        self._do(lambda store: self._begin(store, run, live))
        return live.uid

    def append_prefix(self, run: int, kept: TokenBatch, changes: Sequence[Change]) -> None:
        """The run took over tokens, and the parameters that were turned while they came."""

        def write(store: Store) -> None:
            if (live := self._live.get(run)) is not None and live.id is not None:
                store.keep(live.id, kept)
                store.change(live.id, changes)
                live.texts.insert(0, "".join(kept.text))
                live.tokens += len(kept)
            elif (known := self._ended.get(run)) is not None:
                store.keep(known, kept)
                store.change(known, changes)
                stored = store.load(known)
                answer = transcript_of(stored).text
                store.finish(known, stored.entry.state, answer, stored.finished, stored.message)

        self._do(write)

    def placed(self, run: int, conversation: str, turn: int, parent: str) -> None:
        """The run is a turn of a conversation."""

        def write(store: Store) -> None:
            live = self._live.get(run)
            known = live.id if live is not None else self._ended.get(run)
            if known is not None:
                store.place(known, conversation, turn, parent)

        self._do(write)

    def uid(self, run: int) -> str:
        """The name of a run of the present engine."""
        return self._engine.uid(run) if self._engine is not None else ""

    def leave(self) -> None:
        """What is stopped from now on is stopped by our leaving: it is to be offered at the next start."""
        self._leaving = self._offers

    def heard(self, news: Sequence[Event]) -> None:
        """The engine said something."""
        self._do(lambda store: self._take(store, news))

    def _do(self, job: Callable[[Store], None]) -> None:
        if self._writing:
            self._jobs.append(job)
            self._wake.set()

    # In the recorder's thread.

    def _work(self) -> None:
        try:
            self._keep()
        except Exception as error:
            self._give_up(f"The history stopped ({type(error).__name__}): what comes now is not kept.")
            self._opened.set()
            raise

    def _keep(self) -> None:
        try:
            self._store = store = self._open()
        except (HistoryError, sqlite3.Error, OSError) as error:
            self._give_up(f"Runs are not kept: {error}")
            self._opened.set()
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
                if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING:
                    if (mended := self._mend(store, error)) is not None:
                        store = mended
                        continue
                    # Full, or broken under our hands. What is there already will be found again.
                    self._give_up(f"The history cannot be written ({error}): what comes now is not kept.")
                    break
            if closing and not self._jobs:
                break
            if self._live or self._jobs:
                time.sleep(PERIOD)
            else:
                self._wake.wait()
        store.close()

    def _mend(self, store: Store, error: Exception) -> Store | None:
        """Saves what can be read of a history that turns out to be damaged; None where that cannot be."""
        from edge_tui.history.salvage import is_damage, rebuild

        if store.path is None or self._mended or not is_damage(error):
            return None
        self._mended = True  # what breaks twice does so for a reason that no copy removes
        store.close()
        try:
            self._store = fresh = rebuild(store.path)
            for live in self._live.values():
                live.move(fresh)
        except (sqlite3.Error, HistoryError, OSError):
            return None
        self._ended.clear()  # their numbers were those of the old file
        self.problem = fresh.problem
        return fresh

    def _give_up(self, problem: str) -> None:
        self._writing = False
        self._jobs.clear()
        self.problem = problem

    def _write(self, store: Store) -> None:
        now = self._clock()
        if not self._jobs and now - self._beat <= _BEAT:
            return  # tokens come as jobs as well
        with store.transaction():
            for _ in range(len(self._jobs)):  # what these add waits for the next round
                self._jobs.popleft()(store)
            for live in self._live.values():
                self._flush(store, live)
            if self._live and now - self._beat > _BEAT:
                self._beat = now
                store.heartbeat([live.id for live in self._live.values() if live.id is not None], now)

    def _begin(self, store: Store, run: int, live: _Live) -> None:
        live.id = store.begin(live.uid, live.created, live.request)
        self._live[run] = live

    def _take(self, store: Store, news: Sequence[Event]) -> None:
        for event in news:
            match event:
                case events.Loaded():
                    self._loaded[event.role] = event
                case events.Unloaded():
                    for role in event.roles:
                        self._loaded.pop(role, None)
                case events.Died():
                    self._break_off(store)
                case _:
                    live = self._live.get(getattr(event, "run", None) or 0)
                    if live is not None:
                        self._take_run(store, live, event)

    def _take_run(self, store: Store, live: _Live, event: Event) -> None:
        assert live.id is not None
        match event:
            case events.Started():
                models = {
                    role: model
                    for role in _roles(event.strategy)
                    if (model := self._player(role)) is not None
                }
                live.rows = event.rows
                live.model = next(iter(models.values())).name if models else ""
                store.start(live.id, replace(event, notices=()), models, self._of_programs())
            case events.TokenBatch():
                if len(event):
                    live.batches.append(event)
            case events.ParamChanged():
                store.change(live.id, [Change(event.index, event.name, event.value, event.version)])
            case events.Finished():
                self._end(store, event.run, "finished", event)
            case events.Failed():
                at_fault = event.problem is not None  # its author wants to look at it, whenever it failed
                self._end(store, event.run or 0, "failed", None, event.message, keep=at_fault)
            case _:
                pass

    def _player(self, role: str) -> events.Loaded | None:
        """The model that plays a role; the main one is the expert unless there is another."""
        return self._loaded.get(role) or (self._loaded.get("model") if role == "expert" else None)

    def _flush(self, store: Store, live: _Live) -> None:
        """Writes the tokens that came; joins chunks that have become many."""
        if not live.batches or live.id is None:
            return
        batch = columns.join(live.batches)
        store.append(live.id, live.number, batch)
        live.batches.clear()
        live.number += 1
        live.tokens += len(batch)
        live.small.append(batch)
        live.loose += len(batch)
        if live.rows == 1:
            live.texts.append("".join(batch.text))
        if live.loose >= CHUNK:
            self._join(store, live)

    @staticmethod
    def _join(store: Store, live: _Live) -> None:
        many = len(live.small)
        if not many or live.id is None:
            return
        batch = columns.join(live.small)
        live.ids = _marked(live.ids, batch)
        if many > 1:
            store.append(live.id, live.number - many, batch, replacing=many)
        live.small.clear()
        live.loose = 0

    def _end(
        self,
        store: Store,
        run: int,
        state: State,
        finished: Finished | None,
        message: str = "",
        keep: bool = False,
    ) -> None:
        """Ends a run; one without tokens is forgotten unless `keep`."""
        if (live := self._live.pop(run, None)) is None or live.id is None:
            return
        self._flush(store, live)
        self._join(store, live)
        if not live.tokens and not keep:
            store.delete(live.id)
            return
        if self._leaving and finished is not None and finished.reason == "cancelled":
            return  # still under way, as far as the next start is concerned
        self._ended[run] = live.id
        if len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)
        if live.rows == 1:
            answer = "".join(live.texts) + (finished.tail if finished is not None else "")
        elif finished is not None and finished.answer_text is not None:
            answer = finished.answer_text
        else:
            answer = transcript_of(store.load(live.id)).text
        store.finish(live.id, state, answer, finished, message)
        if live.ids is not None and not self._closing:
            ids = set(live.ids.nonzero()[0].tolist()) - store.known_pieces(live.model)
            self._jobs.append(lambda store: self._learn(store, live.model, sorted(ids)))

    def _learn(self, store: Store, model: str, unknown: list[int]) -> None:
        """Keeps what ids mean, a few at a time."""
        engine = self._engine
        loaded = self._loaded.get("model") or next(iter(self._loaded.values()), None)
        if not unknown or engine is None or loaded is None or loaded.name != model or self._closing:
            return
        now, later = unknown[:_PIECES], unknown[_PIECES:]
        store.add_pieces(model, dict(zip(now, engine.decode(now), strict=False)))
        self._jobs.append(lambda store: self._learn(store, model, later))

    def _break_off(self, store: Store) -> None:
        """The engine is gone, and with it whatever it was doing."""
        for run in list(self._live):
            self._end(store, run, "interrupted", None)
        self._ended.clear()
        self._loaded.clear()

    def _of_programs(self) -> dict[str, str]:
        if not self._versions:
            from importlib.metadata import PackageNotFoundError, version

            from edge_tui import __version__

            self._versions = {"edge-tui": __version__, "python": sys.version.split()[0]}
            for name in ("torch", "transformers"):
                try:
                    self._versions[name] = version(name)
                except PackageNotFoundError:
                    continue
        return self._versions


def recorder_of(settings: Settings, *, offers: bool = True) -> Recorder | None:
    """A recorder of the user's history, unless the settings switch it off."""
    if not settings.history.keep:
        return None
    from edge_tui.history.salvage import open_store
    from edge_tui.history.schema import default_path

    return Recorder(lambda: open_store(default_path()), offers=offers)


def _marked(ids: Any, batch: TokenBatch) -> Any:
    """The marks with a batch's tokens and alternatives added."""
    import numpy as np

    columns_of_ids = (batch.id, batch.top_ids, batch.final_ids)
    most = max(int(column.max(initial=0)) for column in columns_of_ids) + 1
    if ids is None or len(ids) < most:
        grown = np.zeros(most, bool)
        if ids is not None:
            grown[: len(ids)] = ids
        ids = grown
    for column in columns_of_ids:
        ids[column[column >= 0]] = True
    return ids


def _roles(strategy: str) -> tuple[str, ...]:
    from edge_tui import decoders

    try:
        return decoders.find(strategy).roles
    except decoders.UnknownStrategy:
        return ("model",)


class Recorded:
    """An engine whose every event is noted; otherwise `edge_tui.engine.port.Engine` as it is.

    Args:
        inner: The engine.
        recorder: Who notes.
    """

    def __init__(self, inner: Engine, recorder: Recorder) -> None:
        self.inner = inner
        self.recorder = recorder
        self._waiting: deque[Event] = deque()
        self._lock = threading.Lock()
        self._uids: dict[int, str] = {}

    def drain(self) -> None:
        """Takes the engine's news, for the recorder and for whoever polls next."""
        # Order matters: who polls and who drains must not overtake each other.
        with self._lock:
            if news := self.inner.poll():
                self._waiting.extend(news)
                self.recorder.heard(news)

    def poll(self) -> list[Event]:
        self.drain()
        news: list[Event] = []
        while self._waiting:
            news.append(self._waiting.popleft())
        return news

    def submit(self, request: Request) -> int:
        # The engine may speak of the run before we know its number.
        with self._lock:
            run = self.inner.submit(request)
            self._uids[run] = self.recorder.submitted(run, request)
        return run

    def uid(self, run: int) -> str:
        """The name of a run in the history."""
        return self._uids.get(run, "")

    def set(self, run: int, name: str, value: float | str) -> None:
        self.inner.set(run, name, value)

    def cancel(self, run: int | None = None) -> None:
        self.inner.cancel(run)

    def assign(self, role: str, spec: ModelSpec) -> None:
        self.inner.assign(role, spec)

    def load(self, role: str) -> None:
        self.inner.load(role)

    def unload(self, role: str) -> None:
        self.inner.unload(role)

    def refusal(self, strategy: str) -> str:
        return self.inner.refusal(strategy)

    def decode(self, ids: Sequence[int]) -> list[str]:
        return self.inner.decode(ids)

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        return self.inner.count(text, control_tokens)

    def memory(self) -> Memory:
        return self.inner.memory()

    def alive(self) -> bool:
        return self.inner.alive()

    def close(self, timeout: float = 1.0) -> bool:
        self.recorder.leave()
        closed = self.inner.close(timeout)
        self.drain()
        return closed
