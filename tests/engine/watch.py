"""Drives an engine from a test: submit, collect what happens until the run has ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from edge_tui.engine.events import Event, Failed, Finished, ParamChanged, Started, TokenBatch
from edge_tui.engine.port import Engine, Request


@dataclass
class Watched:
    """Holds the events of one run."""

    run: int
    events: list[Event]

    def all(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def started(self) -> Started:
        return self.all(Started)[0]

    @property
    def finished(self) -> Finished:
        return self.all(Finished)[0]

    @property
    def failed(self) -> Failed:
        return self.all(Failed)[0]

    @property
    def changes(self) -> list[ParamChanged]:
        return self.all(ParamChanged)

    def column(self, name: str, row: int = 0) -> list:
        return [
            value
            for batch in self.all(TokenBatch)
            for value, of in zip(getattr(batch, name), batch.row, strict=True)
            if of == row
        ]

    @property
    def ids(self) -> list[int]:
        return [int(token) for token in self.column("id")]

    @property
    def text(self) -> str:
        return "".join(self.column("text")) + (self.finished.tail if self.all(Finished) else "")


def watch(
    engine: Engine,
    request: Request,
    *,
    during: Callable[[int, list[Event]], None] | None = None,
    timeout: float = 60.0,
) -> Watched:
    """Runs a request to its end; `during(run, events so far)` is called after every poll.

    A request without a seed gets one with which the tiny models write on to the end of their context: a drawn
    one would end some texts before the test has acted.
    """
    run = engine.submit(request if request.seed is not None else replace(request, seed=3))
    seen: list[Event] = []
    looked_at = 0
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        seen += engine.poll()
        if during is not None:
            during(run, seen)
        new, looked_at = seen[looked_at:], len(seen)
        if any(isinstance(event, Finished | Failed) and event.run == run for event in new):
            return Watched(run, seen)
        time.sleep(0.002)
    raise TimeoutError(f"run {run} did not end: {seen[-3:]}")


def settle(engine: Engine, kind: type, timeout: float = 60.0) -> list[Event]:
    """Polls until an event of `kind` arrives; returns everything seen."""
    seen: list[Event] = []
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        seen += (new := engine.poll())
        if any(isinstance(event, kind) for event in new):
            return seen
        time.sleep(0.002)
    raise TimeoutError(f"no {kind.__name__}: {seen}")
