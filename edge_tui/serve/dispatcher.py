"""Between many clients and one engine: who is next, and whose are the tokens that come.

Everything here runs on one event loop. The engine decodes one request at a time, so one is handed to it at a
time and the others wait here, where their number is bounded, their order is fair, and whoever leaves is
forgotten before it costs anything.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from edge_tui.engine import events
from edge_tui.serve.errors import GONE, SERVER, ApiError, no_model
from edge_tui.serve.fair_queue import FairQueue
from edge_tui.serve.loop_notifier import LoopNotifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Request
    from edge_tui.serve.roles import Resident, Roles

IDLE_SECONDS = 0.05
"""How often is looked whether the engine lives and a generation takes too long, if nothing happens."""


class Turn:
    """One generation: waits, runs, and yields its events."""

    def __init__(self, request: Request, lane: str, model: str | None = None) -> None:
        self.request = request
        self.lane = lane
        self.model = model
        """The name of the model that was asked for; None takes any."""
        self.run: int | None = None
        self.over = False
        """Whether the engine owes it nothing any more."""
        self.abandoned = False
        """Whether nobody listens any more."""
        self.timed_out = False
        self.began = 0.0
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()

    def put(self, event: Event) -> None:
        """Passes an event on to whoever listens."""
        if not self.abandoned:
            self._events.append(event)
            self._news.set()

    async def take(self) -> list[Event]:
        """Everything that came since the last call; waits for at least one event."""
        await self._news.wait()
        self._news.clear()
        taken = list(self._events)
        self._events.clear()
        return taken


class Place:
    """A request's place in the queue, from admission until its answer has left. Use it with `with`.

    A request with several prompts holds one place and queues up anew for each of them.
    """

    def __init__(self, dispatcher: Dispatcher, lane: str, model: str | None = None) -> None:
        self._dispatcher = dispatcher
        self._lane = lane
        self._model = model
        self._turn: Turn | None = None
        self.ahead = dispatcher.waiting
        """Requests that were waiting when this one came."""

    def __enter__(self) -> Place:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Gives the place back, whatever state its generation is in; a second time does nothing."""
        self._dispatcher.leave(self)

    async def run(self, request: Request) -> AsyncIterator[list[Event]]:
        """Decodes one request; yields the engine's events in batches, a `Finished` or `Failed` last."""
        turn = self._turn = Turn(request, self._lane, self._model)
        self._dispatcher.enqueue(turn)
        while True:
            batch = await turn.take()
            yield batch
            if isinstance(batch[-1], events.Finished | events.Failed):
                return

    @property
    def busy(self) -> bool:
        """Whether the engine still owes it something."""
        return self._turn is None or not self._turn.over

    @property
    def timed_out(self) -> bool:
        """Whether the present generation was ended by the limit on its time."""
        return self._turn is not None and self._turn.timed_out

    def set(self, name: str, value: float | str) -> None:
        """Turns a live parameter of the generation in progress.

        Raises:
            edge_tui.decoders.base.ParamError: see `Engine.set`.
        """
        if self._turn is not None and self._turn.run is not None and not self._turn.over:
            self._dispatcher.engine.set(self._turn.run, name, value)

    def abandon(self) -> Turn | None:
        """Nobody listens any more: the dispatcher gets back what is unfinished."""
        turn, self._turn = self._turn, None
        return turn


class Dispatcher:
    """Hands requests to the engine one after the other and routes its events.

    Args:
        engine: Decodes.
        roles: Its models.
        bell: Rung by the engine when it has news.
        limit: Requests that may wait besides the one that runs.
        seconds: Most seconds of one generation; what was decoded by then is its answer.
    """

    def __init__(
        self, engine: Resident, roles: Roles, bell: LoopNotifier, limit: int, seconds: float
    ) -> None:
        self.engine = engine
        self.roles = roles
        self.limit = limit
        self.closing = False
        self.served = 0
        self._seconds = seconds
        self._fault = ""
        self._queue: FairQueue[Turn] = FairQueue()
        self._places: set[Place] = set()
        self._current: Turn | None = None
        self._bell = bell
        self._pace = 1.0
        """Seconds that a generation takes, a running mean."""

    # For those who serve clients.

    @property
    def running(self) -> int:
        return int(self._current is not None)

    @property
    def waiting(self) -> int:
        """Requests that were admitted and are not being decoded now."""
        listened = self._current is not None and not self._current.abandoned
        return max(0, self._busy - listened)

    @property
    def _busy(self) -> int:
        """Requests that are not decoded yet; one whose client is slow to read its answer is."""
        return sum(place.busy for place in self._places)

    @property
    def problem(self) -> str:
        """Why the engine cannot decode, as far as it said so."""
        return self._fault or next(iter(self.roles.missing.values()), "")

    @property
    def ready(self) -> bool:
        """Whether a request would be decoded: the engine lives, and no model is missing or on its way."""
        return self.engine.alive() and not self._fault and self.roles.ready

    def admit(self, lane: str, model: str | None = None) -> Place:
        """A place for one request.

        Args:
            lane: Who asks; each lane gets its turn.
            model: The name of the model that is to answer; another one may be loaded while it waits.

        Raises:
            ApiError: 429 if too many wait, 503 if nothing can be decoded.
        """
        if self.closing:
            raise ApiError(503, "The server is shutting down; ask another one.", code="shutting_down")
        if not self.engine.alive():
            raise ApiError(503, self.problem or "The engine has stopped; restart the server.")
        if self._busy > self.limit:
            seconds = self.retry_after()
            raise ApiError(
                429,
                f"{self.waiting} requests wait and the queue holds {self.limit}; try again in {seconds} s.",
                code="queue_full",
                headers={"Retry-After": str(seconds)},
            )
        place = Place(self, lane, model)
        self._places.add(place)
        return place

    def retry_after(self) -> int:
        """Seconds after which about half of the queue will have been served."""
        return max(1, min(60, round(self._pace * (1 + self.waiting) / 2)))

    def enqueue(self, turn: Turn) -> None:
        """Lets a turn wait for the engine."""
        self._queue.push(turn.lane, turn)
        self._next()

    def leave(self, place: Place) -> None:
        """Gives a place back; what it still wanted is dropped, or stopped within a step."""
        self._places.discard(place)
        turn = place.abandon()
        if turn is None or turn.over:
            return
        turn.abandoned = True
        if turn.run is None:
            self._queue.remove(turn.lane, turn)
        else:
            self.engine.cancel(turn.run)

    def abort(self) -> None:
        """Ends everything now: what runs is cut short, what waits is refused."""
        self.closing = True
        while len(self._queue):
            self._fail(self._queue.pop(), "The server is shutting down; nothing was decoded.")
        if self._current is not None and self._current.run is not None:
            self.engine.cancel(self._current.run)

    async def drained(self) -> None:
        """Returns once no request holds a place."""
        while self._places:
            await asyncio.sleep(0.01)

    # For the engine's side.

    async def serve(self) -> None:
        """Moves the engine's news to those who wait for it, for ever."""
        self._bell.attach()
        while True:
            for event in self.engine.poll():
                self._route(event)
            self._watch()
            await self._bell.wait(IDLE_SECONDS)

    def collapse(self, pump: asyncio.Task[None]) -> None:
        """`serve` has ended. If that was a mistake of ours, nobody shall wait for ever."""
        if pump.cancelled() or (error := pump.exception()) is None:
            return
        from edge_tui.util import logs

        logs.write_crash(error)
        self._fault = "The server lost touch with its engine; restart it (its log has the details)."
        self.abort()
        if self._current is not None:
            self._fail(self._current, self.problem)

    def _next(self) -> None:
        while self._current is None and len(self._queue):
            turn = self._queue.pop()
            if turn.model is not None and turn.model not in self.roles.names:
                self._fail(turn, no_model(turn.model, self.roles.name), GONE)
                continue
            self._current = turn
            turn.began = time.monotonic()
            turn.run = self.engine.submit(turn.request)

    def _watch(self) -> None:
        """What nobody tells: a generation beyond its time, an engine that is gone."""
        turn = self._current
        if turn is None:
            return
        if not self.engine.alive():
            self._end(turn)
            self._fail(turn, self.problem or "The engine stopped; restart the server.")
            while len(self._queue):
                self._fail(self._queue.pop(), "The engine stopped; restart the server.")
        elif not turn.timed_out and time.monotonic() - turn.began > self._seconds and turn.run is not None:
            turn.timed_out = True
            self.engine.cancel(turn.run)

    def _route(self, event: Event) -> None:
        if self.roles.take(event):
            return
        if isinstance(event, events.Died):
            self._fault = event.message
        turn = self._current
        if turn is not None and getattr(event, "run", None) == turn.run:
            turn.put(event)
            # A failure in the middle of a run is followed by the run's end.
            if isinstance(event, events.Finished | events.Failed):
                self.roles.loading.clear()  # what it may have begun to load, it does not go on with
                self._end(turn)

    def _end(self, turn: Turn) -> None:
        turn.over = True
        self.served += 1
        self._pace += 0.2 * (time.monotonic() - turn.began - self._pace)
        self._current = None
        self._next()

    @staticmethod
    def _fail(turn: Turn, message: str, field: str = SERVER) -> None:
        turn.over = True
        turn.put(events.Failed(message, turn.run, field))
