"""Holds the screen's view of the engine: one run at a time, the loaded models, the speed. No widget.

The engine reports events; `pump` folds them into this state and returns them to the thread that paints.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.engine import events
from edge_tui.transcript.run_state import EngineState, RunState
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.questions import Questions
from edge_tui.tui.readings import Readings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from edge_tui.config.settings import Models
    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.events import Event, Loaded
    from edge_tui.engine.port import Engine, ModelSpec, Request
    from edge_tui.history.recorder import Recorder
    from edge_tui.history.runs import StoredRun


class Meter:
    """Measures tokens per second, now and on the mean, with a short history for a sparkline.

    Args:
        clock: Monotonic seconds.
    """

    WINDOW = 1.0
    """Seconds that "now" looks back."""
    SLOT, SLOTS = 0.25, 24
    """Seconds of an entry of the history, and its length."""
    LEAST = 0.05
    """Seconds under which there is no rate: what arrives in one piece tells of the way it came, no more."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._arrivals: deque[tuple[float, int]] = deque()
        self.history: deque[float] = deque(maxlen=self.SLOTS)
        self.total = 0
        self._start: float | None = None
        self._last = 0.0
        self._slot_start = 0.0
        self._slot_tokens = 0

    def add(self, tokens: int) -> None:
        """Counts tokens that just arrived. The first arrival only starts the clock: it was the prefill's."""
        now = self._clock()
        self.total += tokens
        if self._start is None:
            self._start = self._last = self._slot_start = now
            self._first_tokens, self._slot_tokens = self.total, 0
            return
        self._last = now
        self._arrivals.append((now, tokens))
        self._slot_tokens += tokens
        if (elapsed := now - self._slot_start) >= self.SLOT:
            self.history.append(self._slot_tokens / elapsed)
            self._slot_start, self._slot_tokens = now, 0
        while self._arrivals and self._arrivals[0][0] < now - self.WINDOW:
            self._arrivals.popleft()

    def begin_anew(self) -> None:
        """Forgets times: the tokens so far waited for what was made ready beside them."""
        self._start = None
        self._arrivals.clear()
        self.history.clear()

    @property
    def now(self) -> float | None:
        """Tokens per second over the last moments; None before there is a rate."""
        if self._start is None or not self._arrivals:
            return None
        span = self._last - max(self._start, self._last - self.WINDOW)
        return sum(n for _, n in self._arrivals) / span if span >= self.LEAST else None

    @property
    def mean(self) -> float | None:
        """Tokens per second since the first token, or since times were forgotten."""
        if self._start is None or self._last - self._start < self.LEAST:
            return None
        return (self.total - self._first_tokens) / (self._last - self._start)


@dataclass(frozen=True, slots=True)
class TurnPosition:
    """Locates a run in a conversation: its id, the answer's number, the run of the answer before."""

    conversation: str
    turn: int
    parent: str


@dataclass(slots=True)
class Run(RunState):
    """Holds one generation as the screen sees it: its state, its tokens, its speed.

    Attributes:
        id: Number of the engine; negative for a run from the history.
        request: The request.
        meter: Its speed.
        previous: The transcript that this run continues, until it has begun.
        transcript: Its tokens, from its beginning on.
        decoder: The strategy, as it was when the run began.
        uid: Its name in the history.
        token_strings: Texts of ids, for a run from the history; the engine's model may be another one.
        model: Name of the model that wrote it.
        models: The models that took part, by role, the main one first; empty where they are not known.
        stored: A run from the history, without its tokens: what it was written by.
    """

    id: int
    request: Request
    meter: Meter
    previous: Transcript | None = None
    transcript: Transcript | None = None
    decoder: Decoder | None = None
    uid: str = ""
    token_strings: Mapping[int, str] | None = None
    model: str = ""
    models: Mapping[str, Loaded] = field(default_factory=dict)
    stored: StoredRun | None = None

    @property
    def seed(self) -> int | None:
        """The seed, also of a run that has not begun."""
        return self.started.seed if self.started is not None else self.request.seed


@dataclass(slots=True)
class Session(EngineState):
    """Holds the engine's state, its newest run and the one on the screen; submits one request at a time.

    Attributes:
        clock: Monotonic seconds; tests give their own.
        engine: None until it was created.
        run: The newest run.
        beside: A run that is decoded in turn with another, to be compared.
        written: The newest run that began; its tokens stay when one after it is refused.
        viewed: An earlier run on the screen; None follows the newest.
        recorder: Writes the runs to the history; None without one.
        readings: Prompts that are read and not run.
        questions: Why tokens were taken.
        unpainted: True from an event of the engine until whoever paints says that it is on the screen.
    """

    clock: Callable[[], float] = time.monotonic
    engine: Engine | None = None
    run: Run | None = None
    beside: Run | None = None
    written: Run | None = None
    viewed: Run | None = None
    recorder: Recorder | None = None
    readings: Readings = field(default_factory=Readings)
    questions: Questions = field(default_factory=Questions)
    unpainted: bool = False
    _next: tuple[Request, Transcript | None, TurnPosition | None] | None = None

    def main(self, strategy: str) -> Loaded | None:
        """Finds the loaded model whose tokens a strategy writes."""
        return self.model_for(_roles(strategy)[0]) or self.loaded.get("model")

    @property
    def current(self) -> Run | None:
        """The run on the screen; a refused run gives way to the last one that wrote tokens."""
        run = self.run
        refused = run is not None and run.phase == "failed" and run.transcript is None
        return self.viewed or (self.written if refused else None) or run

    def texts_of(self, ids: Sequence[int], run: Run | None = None) -> list[str]:
        """Decodes ids with the model of a run, that on the screen if None, else by what its history has."""
        run, loaded = run or self.current, self.loaded.get("model")
        texts = run.token_strings if run is not None else None
        # An interrupted run has not stored all of its tokens, so that its own model comes first.
        if run is not None and texts is not None and (loaded is None or loaded.name != run.model):
            return [texts.get(each, f"id {each}") for each in ids]
        return self.engine.decode(ids) if self.engine is not None else [""] * len(ids)

    @property
    def busy(self) -> bool:
        """True while a run is under way or waits."""
        return self._next is not None or (self.run is not None and self.run.active)

    @property
    def waiting(self) -> bool:
        """True while a run waits for an older one to wind down, or for the engine to exist."""
        return self._next is not None

    def start(
        self, request: Request, previous: Transcript | None = None, place: TurnPosition | None = None
    ) -> None:
        """Runs a request; a run in progress is stopped first, and a waiting one gives way: the last wins."""
        self._next, self.viewed = (request, previous, place), None
        if self.run is not None and self.run.active:
            self._wind_down(self.run)
        else:
            self._submit()

    def start_beside(self, first: Run, request: Request) -> Run | None:
        """Runs a request in turn with a run, or alone where that has ended; None without an engine."""
        if self.engine is None or self.dead:
            return None
        number = self.engine.submit(request, first.id if first.active else None)
        self.beside = Run(number, request, Meter(self.clock))
        if self.recorder is not None:
            self.beside.uid = self.recorder.uid(number)
        return self.beside

    def end_beside(self, taken: Run | None = None) -> None:
        """Ends the comparison of two runs: one goes on and is on the screen, the other is stopped.

        Args:
            taken: The one that goes on; that which was there first if None.
        """
        second, self.beside = self.beside, None
        if second is None:
            return
        if taken is not second:
            self._wind_down(second)
            return
        if self.run is not None:
            self._wind_down(self.run)
        self.run, self.viewed = second, None
        if second.transcript is not None:
            self.written = second

    def stop(self) -> bool:
        """Stops what runs or waits; False if nothing did."""
        waited, self._next = self._next is not None, None
        if self.run is None or not self.run.active:
            return waited
        self._wind_down(self.run)
        return True

    def _wind_down(self, run: Run) -> None:
        if self.engine is not None and run.active and run.phase != "stopping":
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
                self.recorder.set_turn(run.id, place.conversation, place.turn, place.parent)

    def launch(self, make: Callable[[], Engine]) -> None:
        """Makes the engine, or another one in place of a dead one, and loads its model."""
        if self.engine is not None:
            # A dead engine must not keep the device from the new one.
            self.engine.close(0)
        engine = make()
        if self.recorder is not None:
            engine = self.recorder.record(engine)
        self.attach(engine)
        engine.load("model")

    def assign(self, role: str, spec: ModelSpec, models: Models) -> None:
        """Gives a role to a model and loads it.

        Args:
            role: The role.
            spec: The model.
            models: The models of the settings; a role without one of its own follows another role.
        """
        if self.engine is None:
            return
        self.engine.assign(role, spec)
        if role == "amateur" and not models.draft:
            self.engine.assign("draft", replace(spec, device=models.draft_device or spec.device))
        if role == "model" and (models.expert or models.expert_device):
            # One of its own, or elsewhere; else it is the main model anyway.
            self.engine.assign("expert", replace(spec, device=models.expert_device or spec.device))
        self.engine.load(role)

    def attach(self, engine: Engine) -> None:
        """Takes an engine, and submits what waits for one."""
        self.engine = engine
        self.questions.attach(engine)
        self.reset()
        for run in (self.run, self.beside):
            if run is not None and run.active:
                run.phase = "failed"
        self.readings.attach(engine)
        self._submit()

    def pump(self) -> list[Event]:
        """Takes the engine's news and folds it in; call it from the thread that paints.

        Those of readings and answers to questions are not among what it returns.
        """
        if self.engine is None:
            return []
        events = self.engine.poll()
        self.unpainted |= bool(events)
        news = [each for each in events if not self._is_apart(each)]
        for event in news:
            self._apply(event)
        if self._next is not None and (self.run is None or not self.run.active):
            self._submit()
        return news

    def _is_apart(self, event: Event) -> bool:
        """Hands an event to those that ask the engine beside its runs; False where it is none of theirs."""
        if self.readings.apply(event):
            self.apply(event)  # a model that could not be loaded for it is not loading any more
            return True
        return self.questions.apply(event)

    def _apply(self, event: Event) -> None:
        self.apply(event)
        for run in (self.run, self.beside):
            if run is not None and (isinstance(event, events.Died) or getattr(event, "run", None) == run.id):
                self._apply_to(run, event)

    def _apply_to(self, run: Run, event: Event) -> None:
        steps = run.steps
        run.apply(event)
        if isinstance(event, events.Started):
            self._begin(run, event)
        elif run.transcript is not None:
            run.transcript.apply(event)
            if isinstance(event, events.TokenBatch) and len(event):
                run.meter.add(run.steps - steps)
        if isinstance(event, events.Progress) and event.what == "capture":
            run.meter.begin_anew()

    def _begin(self, run: Run, started: events.Started) -> None:
        if run is self.run:
            self.written = run
        writer = self.main(started.strategy)
        run.model = writer.name if writer is not None else ""
        run.models = {role: model for role in _roles(started.strategy) if (model := self.model_for(role))}
        decode = self.engine.decode if self.engine is not None else None
        run.transcript = Transcript(started, run.previous, run.request.prefix, decode)
        run.previous = None
        prefix = run.transcript.prefix_batch()
        if self.recorder is not None and prefix is not None:
            self.recorder.append_prefix(run.id, prefix, run.transcript.changes)

    def state(self) -> tuple[str, str]:
        """Describes the state in a few words, with its kind: "idle", "busy" or "error"."""
        if self.dead:
            return "engine stopped", "error"
        if self.engine is None:
            return "starting", "busy"
        if self.loading:
            name, done, total = next(iter(self.loading.values()))
            return f"loading {name}" + (f" {100 * done // total} %" if total else ""), "busy"
        active = [run for run in (self.run, self.beside) if run is not None and run.active]
        run = active[0] if active else None
        if run is None:
            return ("ready", "idle") if self.loaded else ("no model loaded yet", "idle")
        if run.phase == "queued" and run.compiled[0] < run.compiled[1]:
            return f"compiling kernels, {run.compiled[0]} of {run.compiled[1]}", "busy"
        if run.phase == "reading" and run.read[1]:
            return f"reading {run.read[0]:,}/{run.read[1]:,}", "busy"
        words = {"queued": "queued", "reading": "reading the prompt", "stopping": "stopping"}
        return words.get(run.phase, "decoding"), "busy"


def _roles(strategy: str) -> tuple[str, ...]:
    """Lists the roles of a strategy; the main one alone where there is none of that name any more."""
    try:
        return decoders.find(strategy).roles
    except decoders.UnknownStrategy:
        return ("model",)
