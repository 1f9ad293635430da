"""What the screen knows of the engine: one run at a time, what is loaded, how fast it goes. No widget.

The engine reports events; `pump` folds them into this state and hands them on to whoever paints.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from edge_tui import decoders
from edge_tui.engine import events
from edge_tui.transcript.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.port import Engine, Request
    from edge_tui.history.recorder import Recorder

Phase = Literal["queued", "reading", "decoding", "stopping", "done", "failed"]


class Meter:
    """Tokens per second now and on the mean, and a short history for a sparkline.

    Args:
        clock: Monotonic seconds.
        window: Seconds that "now" looks back.
        slots: Length of the history; one slot is a quarter of a second.
    """

    SLOT = 0.25
    LEAST = 0.05
    """Seconds under which there is no rate: what arrives in one piece tells of the way it came, no more."""

    def __init__(self, clock: Callable[[], float], window: float = 1.0, slots: int = 24) -> None:
        self._clock = clock
        self._window = window
        self._seen: deque[tuple[float, int]] = deque()
        self.history: deque[float] = deque(maxlen=slots)
        self.total = 0
        self._begun: float | None = None
        self._last = 0.0
        self._slot_start = 0.0
        self._slot_tokens = 0

    def add(self, tokens: int) -> None:
        """Counts tokens that just arrived. The first arrival only starts the clock: it was the prefill's."""
        now = self._clock()
        self.total += tokens
        if self._begun is None:
            self._begun = self._last = self._slot_start = now
            self._first = tokens
            return
        self._last = now
        self._seen.append((now, tokens))
        self._slot_tokens += tokens
        if (elapsed := now - self._slot_start) >= self.SLOT:
            self.history.append(self._slot_tokens / elapsed)
            self._slot_start, self._slot_tokens = now, 0
        while self._seen and self._seen[0][0] < now - self._window:
            self._seen.popleft()

    @property
    def now(self) -> float | None:
        """Tokens per second over the last moments; None before there is a rate."""
        if self._begun is None or not self._seen:
            return None
        span = self._last - max(self._begun, self._last - self._window)
        return sum(n for _, n in self._seen) / span if span >= self.LEAST else None

    @property
    def mean(self) -> float | None:
        """Tokens per second since the first token."""
        if self._begun is None or self._last - self._begun < self.LEAST:
            return None
        return (self.total - self._first) / (self._last - self._begun)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run stands in a conversation: which one, the answer's number, the run of the answer before."""

    conversation: str
    turn: int
    parent: str


@dataclass(slots=True)
class Run:
    """One generation as the screen sees it."""

    id: int
    request: Request
    meter: Meter
    previous: Transcript | None = None
    phase: Phase = "queued"
    transcript: Transcript | None = None
    started: events.Started | None = None
    finished: events.Finished | None = None
    decoder: Decoder | None = None
    """The strategy, as it was when the run began."""
    first_token: float | None = None
    read: tuple[int, int] = (0, 0)
    steps: int = 0
    notices: list[str] = field(default_factory=list)
    """What turned up while it went on; a sentence each."""
    uid: str = ""
    """Its name in the history."""
    pieces: Mapping[int, str] | None = None
    """What ids mean, of a run from the history; the engine's model may be another one."""
    model: str = ""
    """Name of the model that wrote it."""

    @property
    def active(self) -> bool:
        """Whether the engine still owes it something."""
        return self.phase not in ("done", "failed")


@dataclass(slots=True)
class Session:
    """The engine's state, folded from its events.

    Attributes:
        clock: Monotonic seconds; tests give their own.
        engine: None until it was created.
        run: The newest run.
        written: The newest run that began; its tokens stay when one after it is refused.
        loaded: Models by role.
        loading: Role → (name, done, total) of models on their way.
        dead: Why the engine's thread ended, "" while it lives.
        recorder: Keeps the runs; None where nothing is kept.
    """

    clock: Callable[[], float] = time.monotonic
    engine: Engine | None = None
    run: Run | None = None
    written: Run | None = None
    loaded: dict[str, Loaded] = field(default_factory=dict)
    loading: dict[str, tuple[str, int, int]] = field(default_factory=dict)
    dead: str = ""
    recorder: Recorder | None = None
    _next: tuple[Request, Transcript | None, Place | None] | None = None

    def main(self, strategy: str) -> Loaded | None:
        """The loaded model whose tokens a strategy writes."""
        try:
            role = decoders.find(strategy).roles[0]
        except decoders.UnknownStrategy:
            role = "model"
        return self.loaded.get(role) or self.loaded.get("model")

    @property
    def busy(self) -> bool:
        """Whether a run is under way or waits."""
        return self._next is not None or (self.run is not None and self.run.active)

    @property
    def waiting(self) -> bool:
        """Whether a run waits for an older one to wind down, or for the engine to exist."""
        return self._next is not None

    def start(self, request: Request, previous: Transcript | None = None, place: Place | None = None) -> None:
        """Runs a request; a run in progress is stopped first, and a waiting one gives way: the last wins."""
        self._next = (request, previous, place)
        if self.run is not None and self.run.active:
            self._wind_down(self.run)
        else:
            self._submit()

    def stop(self) -> bool:
        """Stops what runs or waits; False if nothing did."""
        waited, self._next = self._next is not None, None
        if self.run is None or not self.run.active:
            return waited
        self._wind_down(self.run)
        return True

    def _wind_down(self, run: Run) -> None:
        if self.engine is not None and run.phase != "stopping":
            run.phase = "stopping"
            self.engine.cancel(run.id)

    def _submit(self) -> None:
        if self._next is None or self.engine is None or self.dead:
            return
        request, previous, place = self._next
        self._next = None
        run = self.run = Run(self.engine.submit(request), request, Meter(self.clock), previous)
        if self.recorder is not None:
            run.uid = self.recorder.uid(run.id)
            if place is not None:
                self.recorder.placed(run.id, place.conversation, place.turn, place.parent)

    def attach(self, engine: Engine) -> None:
        """The engine exists (again)."""
        self.engine = engine
        self.dead = ""
        self.loaded.clear()
        self.loading.clear()
        if self.run is not None and self.run.active:
            self.run.phase = "failed"
        self._submit()

    def pump(self) -> list[Event]:
        """Takes the engine's news and folds it in; call it from the thread that paints."""
        if self.engine is None:
            return []
        news = self.engine.poll()
        for event in news:
            self._fold(event)
        if self._next is not None and (self.run is None or not self.run.active):
            self._submit()
        return news

    def _fold(self, event: Event) -> None:
        match event:
            case events.Loading():
                self.loading[event.role] = (event.name, 0, 0)
            case events.Loaded():
                self.loading.pop(event.role, None)
                self.loaded[event.role] = event
            case events.Unloaded():
                for role in event.roles:
                    self.loaded.pop(role, None)
            case events.Progress(what="load"):
                for role, (name, _, _) in self.loading.items():
                    if name == event.name or not event.name:
                        self.loading[role] = (name, event.done, event.total)
            case events.Died():
                self.dead = event.message
                self.loading.clear()
                self.loaded.clear()
                if self.run is not None and self.run.active:
                    self.run.phase = "failed"
            case events.Failed(run=None):
                self.loading.clear()
            case _:
                if self.run is not None and getattr(event, "run", None) == self.run.id:
                    self._fold_run(self.run, event)

    def _fold_run(self, run: Run, event: Event) -> None:
        match event:
            case events.Started():
                decode = self.engine.decode if self.engine is not None else None
                run.started = event
                self.written = run
                writer = self.main(event.strategy)
                run.model = writer.name if writer is not None else ""
                run.transcript = Transcript(event, run.previous, run.request.prefix, decode)
                run.previous = None
                kept = run.transcript.kept() if self.recorder is not None else None
                if self.recorder is not None and kept is not None:
                    self.recorder.kept(run.id, kept, run.transcript.changes)
                if run.phase == "queued":
                    run.phase = "reading"
            case events.Progress():
                run.read = (event.done, event.total)
            case events.FirstToken():
                run.first_token = event.seconds
            case events.TokenBatch():
                if run.phase == "reading":
                    run.phase = "decoding"
                if run.transcript is not None and len(event):
                    run.transcript.extend(event)
                    steps = int(event.step[-1]) + 1 - len(run.request.prefix)
                    run.meter.add(steps - run.steps)
                    run.steps = steps
            case events.Noticed():
                run.notices.append(event.message)
            case events.ParamChanged():
                if run.transcript is not None:
                    run.transcript.change(event)
            case events.Finished():
                run.phase, run.finished = "done", event
                if run.transcript is not None:
                    run.transcript.finish(event)
            case events.Failed():
                run.phase = "failed"
                self.loading.clear()
            case _:
                pass

    def state(self) -> tuple[str, str]:
        """What goes on, in a few words, and its kind: "idle", "busy" or "error"."""
        if self.dead:
            return "engine stopped", "error"
        if self.engine is None:
            return "starting", "busy"
        if self.loading:
            name, done, total = next(iter(self.loading.values()))
            return f"loading {name}" + (f" {100 * done // total} %" if total else ""), "busy"
        run = self.run
        if run is None or not run.active:
            return ("ready", "idle") if self.loaded else ("no model loaded yet", "idle")
        if run.phase == "reading" and run.read[1]:
            return f"reading {run.read[0]:,}/{run.read[1]:,}", "busy"
        words = {"queued": "queued", "reading": "reading the prompt", "stopping": "stopping"}
        return words.get(run.phase, "decoding"), "busy"
