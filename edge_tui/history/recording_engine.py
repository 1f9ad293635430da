"""Wraps an engine so that the recorder gets every event that it reports."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Engine, Request


class RunWriter(Protocol):
    """Receives what runs on an engine; the recorder is one."""

    def insert_run(self, run: int, request: Request) -> str:
        """Adds a run of the engine; returns its uid."""
        ...

    def append_events(self, news: Sequence[Event]) -> None:
        """Adds what the engine reported."""
        ...

    def begin_exit(self) -> None:
        """Declares that cancellations from now on come from our exit."""
        ...


class RecordingEngine:
    """Passes each event to the recorder and to the caller of `poll`; otherwise the engine as it is.

    Args:
        inner: The engine.
        writer: Writes the events.
    """

    def __init__(self, inner: Engine, writer: RunWriter) -> None:
        self._inner = inner
        self._writer = writer
        self._waiting: list[Event] = []
        self._lock = threading.Lock()
        self._uids: dict[int, str] = {}
        self.set, self.cancel, self.decode, self.count = inner.set, inner.cancel, inner.decode, inner.count
        self.assign, self.load, self.unload = inner.assign, inner.load, inner.unload
        self.refusal, self.memory, self.alive = inner.refusal, inner.memory, inner.alive

    def drain(self) -> None:
        """Takes the engine's events, for the recorder and for the next `poll`."""
        # Order matters: two threads that drain must not overtake each other.
        with self._lock:
            if news := self._inner.poll():
                self._waiting.extend(news)
                self._writer.append_events(news)

    def poll(self) -> list[Event]:
        self.drain()
        with self._lock:
            news, self._waiting = self._waiting, []
        return news

    def submit(self, request: Request) -> int:
        # The engine may report on the run before we know its number.
        with self._lock:
            run = self._inner.submit(request)
            self._uids[run] = self._writer.insert_run(run, request)
        return run

    def uid(self, run: int) -> str:
        """Returns the name of a run in the history."""
        return self._uids.get(run, "")

    def close(self, timeout: float = 1.0) -> bool:
        self._writer.begin_exit()
        closed = self._inner.close(timeout)
        self.drain()
        return closed
