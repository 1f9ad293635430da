"""Queues requests of many clients, hands them to the engine one at a time, and routes its events back.

Everything here runs on one event loop. The engine decodes one request at a time; the others wait here, where
their number is bounded, clients are served in rotation, and a client that hangs up gives up its slot before
its request costs anything.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from edge_tui.engine import events
from edge_tui.serve.errors import ApiError, model_not_found
from edge_tui.serve.fair_queue import FairQueue
from edge_tui.serve.loop_notifier import LoopNotifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import TracebackType

    from edge_tui.engine.events import Event
    from edge_tui.engine.port import Request
    from edge_tui.serve.roles import Roles, ServedEngine

IDLE_SECONDS = 0.05
"""Period of the checks for a dead engine and an overlong generation, if nothing else happens."""
DEAD_ENGINE = "The engine has stopped; restart the server."


class Job:
    """Holds one generation: its request, its state in the queue, and its events for the client.

    Attributes:
        request: The engine's request.
        client_id: Names the client for the queue's rotation.
        model: The model that must decode it; None takes any.
        run: The engine's id, once it decodes.
        done: True once the engine sends nothing more for it.
        abandoned: True once the client has left.
        timed_out: True if the limit on time has ended it.
        start_time: On the monotonic clock, when the engine took it.
    """

    def __init__(self, request: Request, client_id: str, model: str | None = None) -> None:
        self.request = request
        self.client_id = client_id
        self.model = model
        self.run: int | None = None
        self.done = False
        self.abandoned = False
        self.timed_out = False
        self.start_time = 0.0
        self._events: deque[Event] = deque()
        self._available = asyncio.Event()

    def put(self, event: Event) -> None:
        """Passes an event on to the client."""
        if not self.abandoned:
            self._events.append(event)
            self._available.set()

    async def take(self) -> list[Event]:
        """Waits for at least one event and returns all that came since the last call."""
        await self._available.wait()
        self._available.clear()
        taken = list(self._events)
        self._events.clear()
        return taken


class QueueSlot:
    """Holds a request's slot in the queue, from admission until its response has left. Use it with `with`.

    A request with several prompts holds one slot and queues a job for each of them in turn.

    Attributes:
        queue_length: Requests that were waiting when this one came.
    """

    def __init__(self, dispatcher: Dispatcher, client_id: str, model: str | None = None) -> None:
        self._dispatcher = dispatcher
        self._client_id = client_id
        self._model = model
        self._job: Job | None = None
        self.queue_length = dispatcher.waiting

    def __enter__(self) -> QueueSlot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Gives the slot back and cancels its job, if that is not done; a second time does nothing."""
        self._dispatcher.release(self)

    async def run(self, request: Request) -> AsyncIterator[list[Event]]:
        """Decodes one request; yields the engine's events in batches, a `Finished` or `Failed` last."""
        job = self._job = Job(request, self._client_id, self._model)
        self._dispatcher.enqueue(job)
        while True:
            batch = await job.take()
            yield batch
            if isinstance(batch[-1], events.Finished | events.Failed):
                return

    @property
    def headers(self) -> dict[str, str]:
        """The response's headers about the queue."""
        return {"X-Queue-Length": str(self.queue_length)}

    @property
    def busy(self) -> bool:
        """True until the engine is done with the slot's job."""
        return self._job is None or not self._job.done

    @property
    def timed_out(self) -> bool:
        """True if the limit on time has ended the slot's job."""
        return self._job is not None and self._job.timed_out

    def set(self, name: str, value: float | str) -> None:
        """Sets a live parameter of the generation in progress.

        Raises:
            edge_tui.decoders.base.ParamError: see `Engine.set`.
        """
        if self._job is not None and self._job.run is not None and not self._job.done:
            self._dispatcher.engine.set(self._job.run, name, value)

    def detach_job(self) -> Job | None:
        """Takes the job out of the slot, for the dispatcher to cancel."""
        job, self._job = self._job, None
        return job


class Dispatcher:
    """Hands jobs to the engine one after the other and routes its events to them.

    Args:
        engine: Decodes.
        roles: Its models by role.
        notifier: Notified by the engine when it has events.
        limit: Requests that may wait besides the one that runs.
        seconds: Most seconds of one generation; the tokens decoded by then are its answer.
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
        self._queue: FairQueue[Job] = FairQueue()
        self._slots: set[QueueSlot] = set()
        self._current: Job | None = None
        self._notifier = notifier
        self._mean_seconds = 1.0
        """Running mean of a generation's duration."""

    # Called by the routes.

    @property
    def running(self) -> int:
        return int(self._current is not None)

    @property
    def waiting(self) -> int:
        """Requests that were admitted and are not being decoded now."""
        running = self._current is not None and not self._current.abandoned
        return max(0, self._busy - running)

    @property
    def _busy(self) -> int:
        """Slots whose job is not done; one whose client is slow to read the response is not among them."""
        return sum(slot.busy for slot in self._slots)

    @property
    def problem(self) -> str:
        """Why the engine cannot decode, one sentence; "" while nothing is known to be wrong."""
        return self._fault or next(iter(self.roles.required_errors.values()), "")

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
            seconds = self.retry_after()
            raise ApiError(
                429,
                f"{self.waiting} requests wait and the queue holds {self.limit}; try again in {seconds} s.",
                code="queue_full",
                headers={"Retry-After": str(seconds)},
            )
        slot = QueueSlot(self, client_id, model)
        self._slots.add(slot)
        return slot

    def retry_after(self) -> int:
        """Estimates the seconds after which half of the queue will have been served."""
        return max(1, min(60, round(self._mean_seconds * (1 + self.waiting) / 2)))

    def enqueue(self, job: Job) -> None:
        """Appends a job to the queue."""
        self._queue.push(job.client_id, job)
        self._submit_next()

    def release(self, slot: QueueSlot) -> None:
        """Takes a slot back; its job is dropped from the queue, or cancelled within a step."""
        self._slots.discard(slot)
        job = slot.detach_job()
        if job is None or job.done:
            return
        job.abandoned = True
        if job.run is None:
            self._queue.remove(job.client_id, job)
        else:
            self.engine.cancel(job.run)

    def abort(self) -> None:
        """Cancels the running job and fails those that wait."""
        self.closing = True
        self._fail_queue("The server is shutting down; nothing was decoded.")
        if self._current is not None and self._current.run is not None:
            self.engine.cancel(self._current.run)

    async def wait_until_idle(self) -> None:
        """Returns once no request holds a slot."""
        while self._slots:
            await asyncio.sleep(0.01)

    # The engine's events.

    async def pump(self) -> None:
        """Routes the engine's events to their jobs, for ever."""
        self._notifier.attach()
        while True:
            for event in self.engine.poll():
                self._route(event)
            self._check_current()
            await self._notifier.wait(IDLE_SECONDS)

    def on_pump_done(self, task: asyncio.Task[None]) -> None:
        """Fails every job if `pump` has ended by an error, so that no client waits for ever."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        from edge_tui.util import logs

        logs.write_crash(error)
        self._fault = "The server lost touch with its engine; restart it (its log has the details)."
        self.abort()
        if self._current is not None:
            _fail(self._current, self.problem)

    def _submit_next(self) -> None:
        while self._current is None and len(self._queue):
            job = self._queue.pop()
            if job.model is not None and job.model not in self.roles.names:
                error = model_not_found(job.model, self.roles.name)
                _fail(job, error.message, error.code, "model")
                continue
            self._current = job
            job.start_time = time.monotonic()
            job.run = self.engine.submit(job.request)

    def _check_current(self) -> None:
        """Ends the running job if the engine is dead or the limit on time has passed."""
        job = self._current
        if job is None:
            return
        if not self.engine.alive():
            self._end(job)
            _fail(job, self.problem or DEAD_ENGINE)
            self._fail_queue(DEAD_ENGINE)
        elif not job.timed_out and time.monotonic() - job.start_time > self._seconds and job.run is not None:
            job.timed_out = True
            self.engine.cancel(job.run)

    def _route(self, event: Event) -> None:
        if self.roles.apply(event):
            return
        if isinstance(event, events.Died):
            self._fault = event.message
        job = self._current
        if job is not None and getattr(event, "run", None) == job.run:
            job.put(event)
            # A failure in the middle of a run is followed by the run's end.
            if isinstance(event, events.Finished | events.Failed):
                self.roles.loading.clear()  # a load that the run has begun ends with it
                self._end(job)

    def _end(self, job: Job) -> None:
        job.done = True
        self._mean_seconds += 0.2 * (time.monotonic() - job.start_time - self._mean_seconds)
        self._current = None
        self._submit_next()

    def _fail_queue(self, message: str) -> None:
        while len(self._queue):
            _fail(self._queue.pop(), message)


def _fail(job: Job, message: str, code: str = "unavailable", field: str = "") -> None:
    job.done = True
    job.put(events.Failed(message, job.run, field, code=code))
