"""Queues requests of many clients, hands them to the engine one at a time, and routes its events back.

Everything here runs on one event loop. The engine decodes one request at a time; the others wait here, where
their number is bounded, clients are served in rotation, and a client that hangs up gives up its slot before
its request costs anything.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.engine import events
from edge_tui.engine.port import Question, Request
from edge_tui.serve.errors import ApiError, model_not_found, of_failure
from edge_tui.serve.fair_queue import FairQueue
from edge_tui.util import logs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge_tui.decoders.base import Value
    from edge_tui.engine.events import Event
    from edge_tui.engine.explanation import Explanation
    from edge_tui.serve.response_accumulator import ResponseAccumulator
    from edge_tui.serve.roles import Roles, ServedEngine

IDLE_SECONDS = 0.05
"""Period of the checks for a dead engine and an overlong generation, if nothing else happens."""
DEAD_ENGINE = "The engine has stopped; restart the server."
_LAST = (events.Finished, events.Failed, events.Explained)
"""Events of which the first ends a generation or answers a question."""


class LoopNotifier:
    """Sets an asyncio event from any thread; notifications that nobody has taken yet count as one.

    Polling the engine every millisecond instead would take the interpreter from the decode thread.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._pending = False

    def attach(self) -> None:
        """Binds the notifier to the running event loop; before that notifications are dropped."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """Schedules the event on the loop, unless that is pending already."""
        if not self._pending and self._loop is not None:
            self._pending = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Waits for a notification, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        # In this order: a notification after the second line schedules the event again.
        self._event.clear()
        self._pending = False


class QueueSlot:
    """Holds a client's slot in the queue, from admission until `close`, which is after its response.

    It carries one generation or question at a time; a request with several of them queues one after the
    other.

    Args:
        dispatcher: Decodes.
        client_id: Names the client for the queue's rotation.
        model: The model that must decode; None takes any.

    Attributes:
        headers: The response's headers about the queue.
        request: The generation or question that waits or is with the engine.
        run_id: The engine's id, once it decodes.
        busy: False once the engine sends nothing more for the last generation.
        abandoned: True once the client has left before that.
        timed_out: True if the limit on time has ended the last generation.
        start_time: On the monotonic clock, when the engine took it.
    """

    request: Request | Question

    def __init__(self, dispatcher: Dispatcher, client_id: str, model: str | None = None) -> None:
        self.client_id = client_id
        self.model = model
        self.headers = {"X-Queue-Length": str(dispatcher.waiting)}
        self.run_id: int | None = None
        self.busy = True
        self.abandoned = False
        self.timed_out = False
        self.start_time = 0.0
        self._dispatcher = dispatcher
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def close(self) -> None:
        """Gives the slot back and cancels its generation; a second time does nothing."""
        self._dispatcher.release(self)

    def put(self, event: Event) -> None:
        """Passes an event on to the client."""
        if not self.abandoned:
            self._events.put_nowait(event)

    def fail(self, message: str, code: str = "unavailable", field: str = "") -> None:
        """Ends the generation without the engine."""
        self.busy = False
        self.put(events.Failed(message, self.run_id, field, code=code))

    def set(self, name: str, value: Value) -> None:
        """Sets a live parameter of the generation in progress.

        Raises:
            edge_tui.decoders.base.ParamError: see `Engine.set`.
        """
        if self.run_id is not None and self.busy and not self.abandoned:
            self._dispatcher.engine.set(self.run_id, name, value)

    async def run(self, request: Request | Question) -> AsyncIterator[list[Event]]:
        """Decodes a request or asks a question; yields events in batches, one of `_LAST` last."""
        self.request, self.run_id, self.busy, self.timed_out = request, None, True, False
        self._dispatcher.enqueue(self)
        while True:
            batch = [await self._events.get()]
            while not self._events.empty():
                batch.append(self._events.get_nowait())
            yield batch
            if isinstance(batch[-1], _LAST):
                return

    async def explain(self, question: Question) -> Explanation:
        """Asks the engine why a token was taken.

        Raises:
            ApiError: the engine cannot tell.
        """
        async for *_, answer in self.run(question):
            if isinstance(answer, events.Explained):
                return answer.explanation
            if isinstance(answer, events.Failed) and not self.timed_out:
                raise of_failure(answer)
        raise ApiError(503, "The explanation took longer than this server lets it.", code="time")

    async def decode(self, request: Request, accumulator: ResponseAccumulator) -> ResponseAccumulator:
        """Decodes a request to its end and returns the accumulator, which has taken its events.

        Raises:
            ApiError: the engine refused it, or failed.
        """
        async for batch in self.run(replace(request, watched=False)):
            for event in batch:
                accumulator.add(event)
        if accumulator.failed is not None:
            raise of_failure(accumulator.failed)
        return accumulator

    async def start(self, request: Request) -> AsyncIterator[list[Event]]:
        """Waits until the engine has accepted a request, so that a refusal has a status; returns all events.

        The slot is closed if it raises.

        Raises:
            ApiError: the engine refused it.
        """
        batches = self.run(request)
        first: list[Event] = []
        try:
            while not any(isinstance(event, events.Started | events.Finished) for event in first):
                first += await anext(batches)
                if isinstance(first[-1], events.Failed):
                    raise of_failure(first[-1])
        except BaseException:
            self.close()
            raise

        async def rest() -> AsyncIterator[list[Event]]:
            yield first
            async for batch in batches:
                yield batch

        return rest()


class Dispatcher:
    """Hands generations to the engine one after the other and routes its events to their slots.

    Args:
        engine: Decodes.
        roles: Its models by role.
        notifier: Notified by the engine when it has events.
        limit: Requests that may wait besides the one that runs.
        seconds: Most seconds of one generation or question; the tokens decoded by then are its answer.
    """

    def __init__(
        self, engine: ServedEngine, roles: Roles, notifier: LoopNotifier, limit: int, seconds: float
    ) -> None:
        self.engine = engine
        self.roles = roles
        self.limit = limit
        self.closing = False
        self._seconds = seconds
        self._fault = ""
        self._queue: FairQueue[QueueSlot] = FairQueue()
        self._slots: set[QueueSlot] = set()
        self._current: QueueSlot | None = None
        self._notifier = notifier
        self._mean_seconds = 1.0
        """Running mean of a generation's duration."""

    # Called by the routes.

    @property
    def running(self) -> int:
        """Requests that are being decoded: one or none."""
        return int(self._current is not None)

    @property
    def waiting(self) -> int:
        """Requests that were admitted and are not being decoded now."""
        running = self._current is not None and not self._current.abandoned
        return max(0, self._busy - running)

    @property
    def _busy(self) -> int:
        """Slots whose generation is not done; a client that is slow to read its response counts no more."""
        return sum(slot.busy for slot in self._slots)

    @property
    def problem(self) -> str:
        """Why the engine cannot decode, one sentence; "" while nothing is known to be wrong."""
        return self._fault or self.roles.problem

    @property
    def ready(self) -> bool:
        """True while the engine lives and every required model is in memory."""
        return self.engine.alive() and not self._fault and self.roles.ready

    def admit(self, client_id: str, model: str | None = None) -> QueueSlot:
        """Returns a slot for one request.

        Args:
            client_id: Names the client for the queue's rotation.
            model: The model that must decode; another one may be loaded while the request waits.

        Raises:
            ApiError: 429 if too many wait, 503 if nothing can be decoded.
        """
        if self.closing:
            raise ApiError(503, "The server is shutting down; ask another one.", code="shutting_down")
        if not self.engine.alive():
            raise ApiError(503, self.problem or DEAD_ENGINE)
        if self._busy > self.limit:
            # About when half of the queue will have been served.
            seconds = max(1, min(60, round(self._mean_seconds * (1 + self.waiting) / 2)))
            raise ApiError(
                429,
                f"{self.waiting} requests wait and the queue holds {self.limit}; try again in {seconds} s.",
                code="queue_full",
                headers={"Retry-After": str(seconds)},
            )
        slot = QueueSlot(self, client_id, model)
        self._slots.add(slot)
        return slot

    def enqueue(self, slot: QueueSlot) -> None:
        """Appends a slot's generation to the queue."""
        self._queue.push(slot.client_id, slot)
        self._submit_next()

    def release(self, slot: QueueSlot) -> None:
        """Takes a slot back; its generation is dropped from the queue, or cancelled within a step."""
        self._slots.discard(slot)
        if slot.abandoned or not slot.busy:
            return
        slot.abandoned = True
        if slot.run_id is None:
            self._queue.remove(slot.client_id, slot)
        else:
            self.engine.cancel(slot.run_id)

    def abort(self) -> None:
        """Cancels the running generation and fails those that wait."""
        self.closing = True
        self._fail_queue("The server is shutting down; nothing was decoded.")
        if self._current is not None:
            self.engine.cancel(self._current.run_id)

    def is_idle(self) -> bool:
        """Tells whether no request holds a slot."""
        return not self._slots

    # The engine's events.

    async def pump(self) -> None:
        """Routes the engine's events to their slots, for ever; an error fails every request."""
        self._notifier.attach()
        try:
            while True:
                for event in self.engine.poll():
                    self._route(event)
                self._check_current()
                await self._notifier.wait(IDLE_SECONDS)
        except Exception as error:
            logs.write_crash(error)
            self._fault = "The server lost touch with its engine; restart it (its log has the details)."
            self.abort()
            if self._current is not None:
                self._current.fail(self.problem)

    def _submit_next(self) -> None:
        while self._current is None and len(self._queue):
            slot = self._queue.pop()
            if slot.model is not None and slot.model not in self.roles.names:
                error = model_not_found(slot.model, self.roles.name)
                slot.fail(error.message, error.code, "model")
                continue
            self._current = slot
            slot.start_time = time.monotonic()
            request = slot.request
            if isinstance(request, Question):
                slot.run_id = self.engine.explain(request)
            else:
                slot.run_id = self.engine.submit(request)

    def _check_current(self) -> None:
        """Ends the running generation if the engine is dead or the limit on time has passed."""
        slot = self._current
        if slot is None:
            return
        if not self.engine.alive():
            self._end(slot)
            slot.fail(self.problem or DEAD_ENGINE)
            self._fail_queue(DEAD_ENGINE)
        elif not slot.timed_out and time.monotonic() - slot.start_time > self._seconds:
            slot.timed_out = True
            self.engine.cancel(slot.run_id)

    def _route(self, event: Event) -> None:
        if self.roles.apply(event):
            return
        if isinstance(event, events.Died):
            self._fault = event.message
        slot = self._current
        number = event.question if isinstance(event, events.Explained) else getattr(event, "run", None)
        if slot is not None and number == slot.run_id:
            slot.put(event)
            # A failure in the middle of a run is followed by the run's end.
            if isinstance(event, _LAST):
                self.roles.loading.clear()  # a load that the run has begun ends with it
                self._end(slot)

    def _end(self, slot: QueueSlot) -> None:
        slot.busy = False
        self._mean_seconds += 0.2 * (time.monotonic() - slot.start_time - self._mean_seconds)
        self._current = None
        self._submit_next()

    def _fail_queue(self, message: str) -> None:
        while len(self._queue):
            self._queue.pop().fail(message)
