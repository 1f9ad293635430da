"""The engine port over a server: a thread with an event loop, in which every run is a task.

Cancelling a run cancels its task, which closes the connection, which is how a server learns that nobody
listens any more.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.decoders.base import ParamError
from edge_tui.engine.events import (
    Died,
    Event,
    Failed,
    Finished,
    FirstToken,
    Loaded,
    Loading,
    Queued,
    TokenBatch,
    Unloaded,
)
from edge_tui.engine.port import Memory, ModelSpec, Request
from edge_tui.engine.remote import generic, ours
from edge_tui.engine.remote.capabilities import probe
from edge_tui.engine.remote.vocabulary import Vocabulary
from edge_tui.engine.remote.wire import Wire, WireError
from edge_tui.errors import RequestError

if TYPE_CHECKING:
    from edge_tui.engine.remote.capabilities import Server


class RemoteEngine:
    """`edge_tui.engine.port.Engine` over a server.

    The constructor returns at once; the server is looked at when something is asked of it.

    Args:
        base: Its address, as `edge_tui.engine.remote.wire.base_of` gives it.
        key: What it wants to be shown; "" for none.
        model: Name of the model to ask for, where several answer; "" takes the first.
    """

    def __init__(self, base: str, key: str = "", model: str = "") -> None:
        self._wire = Wire(base, key)
        self._model = model
        self._server: Server | None = None
        self._vocabulary = Vocabulary()
        self._events: deque[Event] = deque()
        self._runs: dict[int, asyncio.Task[None]] = {}
        self._names: dict[int, str] = {}
        self._strategies: dict[int, str] = {}
        self._last = 0
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._turn = asyncio.Lock()
        self._asking = asyncio.Lock()
        self._thread = threading.Thread(target=self._own, name="remote engine", daemon=True)
        self._thread.start()

    # The port.

    def submit(self, request: Request) -> int:
        self._last += 1
        run = self._last
        self._strategies[run] = request.strategy
        self._events.append(Queued(run))
        self._do(lambda: self._begin(run, request))
        return run

    def set(self, run: int, name: str, value: float | str) -> None:
        """See the port. Servers of ours alone turn parameters while tokens come."""
        if (strategy := self._strategies.get(run)) is None:
            return
        found = [param for param in decoders.find(strategy).params if param.name == name]
        if not found:
            raise ParamError(f"{strategy} has no parameter {name!r}.")
        found[0].parse(value)
        if self._server is not None and not self._server.ours:
            raise ParamError(f"{self._wire.host} fixes parameters for a run; {name} applies to the next one.")
        self._do(lambda: self._start(self._turn_parameter(run, name, value)))

    def cancel(self, run: int | None = None) -> None:
        self._do(lambda: self._stop(run))

    def assign(self, role: str, spec: ModelSpec) -> None:
        self._do(lambda: self._start(self._load(role, spec)))

    def load(self, role: str) -> None:
        self._do(lambda: self._start(self._load(role, None)))

    def unload(self, role: str) -> None:
        self._do(lambda: self._start(self._unload(role)))

    def refusal(self, strategy: str) -> str:
        """See the port; before the server was looked at nothing is known to be refused."""
        return self._server.refusal(strategy) if self._server is not None else ""

    def poll(self) -> list[Event]:
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def decode(self, ids: Sequence[int]) -> list[str]:
        return self._vocabulary.texts(ids)

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        """Unknown: the tokenizer is on the other side."""
        return None

    def memory(self) -> Memory:
        return Memory(self._wire.host, None, None)

    def alive(self) -> bool:
        return self._thread.is_alive() and not self._closing

    def close(self, timeout: float = 1.0) -> bool:
        self._closing = True
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it has ended in between
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # The thread.

    def _own(self) -> None:
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._wire.close())
        except BaseException as error:
            message = f"The connection's thread stopped ({type(error).__name__}). Restart it to go on."
            self._events.append(Died(message, traceback.format_exc()))
        finally:
            self._loop.close()

    def _do(self, action: Callable[[], object]) -> None:
        """Lets the thread do something; when it is gone, nothing."""
        if not self._closing:
            self._loop.call_soon_threadsafe(action)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Does work that belongs to no run; what goes wrong with it is told."""

        async def guarded() -> None:
            try:
                await work
            except WireError as error:
                self._events.append(Failed(str(error), code=error.code))
            except Exception as error:
                self._events.append(_mistake(error, None))

        return self._loop.create_task(guarded())

    # Runs.

    def _begin(self, run: int, request: Request) -> None:
        self._runs[run] = self._loop.create_task(self._perform(run, request))

    def _stop(self, run: int | None) -> None:
        for known, task in list(self._runs.items()):
            if run is None or known == run:
                task.cancel()

    async def _perform(self, run: int, request: Request) -> None:
        """One run from request to end; whatever happens, its end is told."""
        tally = _Tally(self._events.append)
        try:
            if request.prompt_logps:
                raise RequestError("How likely a prompt is cannot be asked of a server yet.", "prompt_logps")
            async with self._turn:  # one at a time, as the port promises
                server = await self._known()
                if server.ours:
                    await ours.decode(
                        run,
                        request,
                        self._wire,
                        self._vocabulary,
                        tally,
                        lambda name: self._names.update({run: name}),
                    )
                else:
                    await generic.decode(run, request, server, self._wire, self._vocabulary, tally)
        except asyncio.CancelledError:
            self._events.append(tally.cut_short(run))
        except (WireError, RequestError) as error:
            if isinstance(error, WireError) and not error.status:
                self._server = None  # when it is back it may be another one
            self._events.append(Failed(str(error), run, error.field, code=error.code))
        except Exception as error:
            self._events.append(_mistake(error, run))
        finally:
            for table in (self._runs, self._names, self._strategies):
                table.pop(run, None)

    async def _turn_parameter(self, run: int, name: str, value: float | str) -> None:
        if there := self._names.get(run):
            await self._wire.post(f"/infer/stream/{there}/params", {"name": name, "value": value}, 10.0)

    # Models.

    async def _known(self) -> Server:
        """What the server can do; it is asked once.

        Raises:
            WireError: it cannot be reached.
        """
        async with self._asking:
            if self._server is None:
                began = time.perf_counter()
                self._events.append(Loading("model", self._model or self._wire.host))
                self._server = await probe(self._wire, self._model)
                self._tell(self._server, time.perf_counter() - began)
            return self._server

    def _tell(self, server: Server, seconds: float) -> None:
        if server.ours:
            for role, facts in server.loaded.items():
                self._events.append(_loaded(role, facts, server))
            if "model" in server.loaded:
                return
        notices = (
            []
            if server.ours
            else [f"{server.host} speaks OpenAI's API: strategies beyond it are greyed out."]
        )
        self._events.append(
            Loaded(
                role="model",
                name=server.title or server.host,
                architecture="",
                tier="remote",
                device=server.host,
                precision="",
                dtype="",
                vocab=0,
                context=server.context,
                parameters=0,
                weight_bytes=0,
                seconds=seconds,
                chat=server.chat,
                notices=tuple(notices),
            )
        )

    async def _load(self, role: str, spec: ModelSpec | None) -> None:
        """Looks at the server; where it lets clients choose, a model is loaded there."""
        server = await self._known()
        if spec is None:
            return
        if not server.manage:
            raise WireError(f"The models of {server.host} are its own to choose; this one decodes there.")
        self._events.append(Loading(role, spec.name))
        body = {"role": role, "name": spec.name}
        if spec.precision != "auto":  # else the server's own choice holds
            body["precision"] = spec.precision
        answer = await self._wire.post("/models/load", body)
        for each in answer.get("roles", (role,)):  # another role may go with this one
            self._events.append(_loaded(str(each), answer["loaded"], server))

    async def _unload(self, role: str) -> None:
        server = await self._known()
        if not server.manage:
            raise WireError(f"The models of {server.host} are its own to unload.")
        answer = await self._wire.post("/models/unload", {"role": role})
        roles = tuple(map(str, answer.get("roles", (role,))))  # weights may play several
        self._events.append(Unloaded(roles, server.title, 0, 0))


class _Tally:
    """Passes events on, and counts, for a run whose end nobody tells because it was cancelled.

    Args:
        post: Where events go.
    """

    def __init__(self, post: Callable[[Event], None]) -> None:
        self._post = post
        self._steps = 0
        self._wait = self._first = self._last = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, TokenBatch) and len(event):
            self._last = time.perf_counter()
            self._first = self._first or self._last
            self._steps += len(set(event.step.tolist()))
        elif isinstance(event, FirstToken):
            self._wait = event.seconds
        self._post(event)

    def cut_short(self, run: int) -> Finished:
        """The end of a run that was cancelled."""
        return Finished(run, "cancelled", self._steps, self._wait, self._last - self._first)


def _loaded(role: str, facts: Any, server: Server) -> Loaded:
    """What a server of ours says of a model in its memory."""
    return Loaded(
        role=role,
        name=str(facts["name"]),
        architecture=str(facts["architecture"]),
        tier="remote",
        device=f"{facts['device']} of {server.host}",
        precision=str(facts["precision"]),
        dtype=str(facts["dtype"]),
        vocab=int(facts["vocab"]),
        context=int(facts["context"]),
        parameters=int(facts["parameters"]),
        weight_bytes=int(facts["weight_bytes"]),
        seconds=0.0,
        chat=facts["chat"] is True,
        notices=tuple(map(str, facts["notices"])),
    )


def _mistake(error: Exception, run: int | None) -> Failed:
    """An error of ours as a sentence; the traceback goes to the log."""
    detail = "".join(traceback.format_exception(error))
    return Failed(f"That failed: {type(error).__name__}. The log has the details.", run, detail=detail)
