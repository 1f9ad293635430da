"""Implements the engine's port over HTTP: a thread with an event loop, in which every run is a task.

Cancelling a run cancels its task, which closes the connection, by which the server notices it.
"""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edge_tui.decoders.base import ParamError, TextParam, Value
from edge_tui.engine.decode.resolve import find_param
from edge_tui.engine.events import (
    Died,
    Event,
    Explained,
    Failed,
    Finished,
    FirstToken,
    Loaded,
    Loading,
    Queued,
    TokenBatch,
    Unloaded,
)
from edge_tui.engine.port import Memory, ModelSpec, Question, Request
from edge_tui.engine.remote import codec, edge_protocol, openai_protocol
from edge_tui.engine.remote.capabilities import probe
from edge_tui.engine.remote.http_client import HttpClient, RemoteError
from edge_tui.engine.remote.vocabulary import Vocabulary
from edge_tui.errors import CannotExplain, RequestError

if TYPE_CHECKING:
    from edge_tui.engine.remote.capabilities import ServerInfo


class RemoteEngine:
    """Implements `edge_tui.engine.port.Engine` over a server.

    The constructor returns at once; the first run or load probes the server.

    Args:
        base: Its address, as `edge_tui.engine.remote.http_client.base_url` returns it.
        key: Its API key; "" for none.
        model: Name of the model to request, where several answer; "" takes the first.
    """

    def __init__(self, base: str, key: str = "", model: str = "") -> None:
        self._client = HttpClient(base, key)
        self._model = model
        self._server: ServerInfo | None = None
        self._vocabulary = Vocabulary()
        self._events: deque[Event] = deque()
        self._runs: dict[int, _Run] = {}
        self._encoded: dict[str, tuple[int, ...] | RequestError | None] = {}
        """Texts that the server is to encode: its answer, or None before."""
        self._last = 0
        self._closing = False
        self._loop = asyncio.new_event_loop()
        self._run_lock = asyncio.Lock()
        self._probe_lock = asyncio.Lock()
        self._thread = threading.Thread(target=self._run_loop, name="remote engine", daemon=True)
        self._thread.start()

    # The engine's port.

    def submit(self, request: Request, beside: int | None = None) -> int:
        """Starts a run's request on the loop's thread; a server decodes one run after the other."""
        self._last += 1
        run = self._runs[self._last] = _Run(self._last, request, self._events.append)
        self._events.append(Queued(run.id))
        self._call(lambda: self._start_run(run))
        return run.id

    def explain(self, question: Question) -> int:
        """Sends a question to an edge-tui server; others tell too little of a token."""
        self._last += 1
        run = self._runs[self._last] = _Run(self._last, question.request, self._events.append)
        self._call(lambda: self._start_question(run, question))
        return run.id

    def set(self, run: int, name: str, value: Value) -> None:
        """Sends a parameter to an edge-tui server; others fix a run's parameters, and are refused."""
        if (state := self._runs.get(run)) is None:
            return
        param = find_param(state.request.strategy, name)
        if isinstance(param, TextParam):
            param.parse_live(value)
        param.parse(value)
        if self._server is not None and not self._server.is_edge_tui:
            raise ParamError(f"{self._client.host} fixes a run's parameters; {name} applies to the next one.")
        self._call(lambda: self._start_task(self._set_param(state, name, value)))

    def cancel(self, run: int | None = None) -> None:
        """Closes the runs' streams on the loop's thread."""
        self._call(lambda: self._cancel(run))

    def assign(self, role: str, spec: ModelSpec) -> None:
        """Asks the server to load that model for the role, at once."""
        self._call(lambda: self._start_task(self._load(role, spec)))

    def load(self, role: str) -> None:
        """Asks the server to load the model that it has for the role."""
        self._call(lambda: self._start_task(self._load(role, None)))

    def unload(self, role: str) -> None:
        """Asks the server to unload the role's model."""
        self._call(lambda: self._start_task(self._unload(role)))

    def refusal(self, strategy: str) -> str:
        """Does `Engine.refusal` by the probe's results; "" before it has ended."""
        return self._server.refusal(strategy) if self._server is not None else ""

    def poll(self) -> list[Event]:
        """Empties the queue of events."""
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Looks ids up among the texts that the server has sent."""
        return self._vocabulary.texts(ids)

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        """Returns None: the tokenizer is the server's."""
        return None

    def ids(self, text: str) -> tuple[int, ...] | None:
        """Asks an edge-tui server; None until it has answered, which the next call returns."""
        if text not in self._encoded:
            self._encoded[text] = None
            self._call(lambda: self._loop.create_task(self._encode(text)))
        if (answer := self._encoded[text]) is None:
            return None
        del self._encoded[text]  # the next question is for the model of then
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def memory(self) -> Memory:
        """Names the host; its memory is not known."""
        return Memory(self._client.host, None, None)

    def alive(self) -> bool:
        """Tells whether the loop's thread runs and `close` was not called."""
        return self._thread.is_alive() and not self._closing

    def close(self, timeout: float = 1.0) -> bool:
        """Stops the loop and waits for its thread."""
        self._closing = True
        if self._thread.is_alive():
            with suppress(RuntimeError):  # it has ended in between
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # The thread.

    def _run_loop(self) -> None:
        try:
            self._loop.run_forever()
            tasks = asyncio.all_tasks(self._loop)
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            self._loop.run_until_complete(self._client.close())
        except BaseException as error:
            message = f"The connection's thread stopped ({type(error).__name__}). Restart it to go on."
            self._events.append(Died(message, traceback.format_exc()))
        finally:
            self._loop.close()

    def _call(self, action: Callable[[], object]) -> None:
        """Calls an action on the thread, unless the engine is closing."""
        if not self._closing:
            self._loop.call_soon_threadsafe(action)

    def _start_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs a coroutine that belongs to no run; posts `Failed` if it raises."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._events.append(replace(_explain(error, None), field=""))

        return self._loop.create_task(guarded())

    # Runs.

    def _start_run(self, run: _Run) -> None:
        run.task = self._loop.create_task(self._run_request(run, run.request))

    def _cancel(self, id: int | None) -> None:
        for run in list(self._runs.values()):
            if run.task is not None and id in (None, run.id):
                # Behind the task's first step: one that is cancelled before it would post nothing.
                self._loop.call_soon(run.task.cancel)

    async def _run_request(self, run: _Run, request: Request) -> None:
        """Decodes one request; posts `Finished` or `Failed` whatever happens."""
        try:
            async with self._run_lock:  # one at a time, as the port promises
                server = await self._probe()
                texts = self._vocabulary
                if server.is_edge_tui:
                    set_id = partial(setattr, run, "remote_id")
                    await edge_protocol.decode(run.id, request, self._client, texts, run.post, set_id)
                elif request.prompt_logps:
                    raise RequestError(
                        f"{self._client.host} does not say how it reads a prompt: only edge-tui serve does.",
                        "prompt_logps",
                    )
                else:
                    await openai_protocol.decode(run.id, request, server, self._client, texts, run.post)
        except asyncio.CancelledError:
            run.post_cancelled()
        except Exception as error:
            if isinstance(error, RemoteError) and not error.status:
                self._server = None  # when it is back it may be another one
            self._events.append(_explain(error, run.id))
        finally:
            self._runs.pop(run.id, None)

    def _start_question(self, run: _Run, question: Question) -> None:
        run.task = self._loop.create_task(self._ask(run.id, question))

    async def _ask(self, number: int, question: Question) -> None:
        """Answers one question; posts `Explained` or `Failed` whatever happens."""
        try:
            async with self._run_lock:
                server = await self._probe()
                if refusal := server.explain_refusal:
                    raise CannotExplain(refusal)
                self._events.append(Explained(number, await edge_protocol.explain(question, self._client)))
        except asyncio.CancelledError:
            self._events.append(Failed("The question was taken back.", number, code="cancelled"))
        except Exception as error:
            if isinstance(error, RemoteError) and not error.status:
                self._server = None
            self._events.append(_explain(error, number))
        finally:
            self._runs.pop(number, None)

    async def _encode(self, text: str) -> None:
        """Answers `ids` of one text."""
        try:
            server = await self._probe()
            if refusal := server.encode_refusal:
                raise RequestError(refusal)
            self._encoded[text] = await edge_protocol.encode(text, self._client, self._vocabulary)
        except Exception as error:
            self._encoded[text] = RequestError(_explain(error, None).message)

    async def _set_param(self, run: _Run, name: str, value: Value) -> None:
        if run.remote_id:
            body = {"name": name, "value": value}
            await self._client.post(f"/infer/stream/{run.remote_id}/params", body, 10.0)

    # Models.

    async def _probe(self) -> ServerInfo:
        """Returns the server's capabilities; the first call probes it.

        Raises:
            RemoteError: it cannot be reached.
        """
        async with self._probe_lock:
            if self._server is None:
                began = time.perf_counter()
                self._events.append(Loading("model", self._model or self._client.host))
                self._server = await probe(self._client, self._model)
                self._post_loaded(self._server, time.perf_counter() - began)
            return self._server

    def _post_loaded(self, server: ServerInfo, seconds: float) -> None:
        """Posts `Loaded` for each of the server's models, or one for a server of OpenAI's kind."""
        if server.is_edge_tui:
            for role, data in server.loaded.items():
                self._events.append(codec.read_loaded(role, data, server.host))
            if "model" in server.loaded:
                return
        notice = f"{server.host} speaks OpenAI's API: strategies beyond it are greyed out."
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
                notices=() if server.is_edge_tui else (notice,),
            )
        )

    async def _load(self, role: str, spec: ModelSpec | None) -> None:
        """Probes the server; loads a model there if a spec is given and clients may."""
        server = await self._probe()
        if spec is None:
            return
        if not server.manage:
            raise RemoteError(f"Models of {server.host} cannot be changed from here.")
        self._events.append(Loading(role, spec.name))
        body = {"role": role, "name": spec.name}
        if spec.precision != "auto":  # else the server's own choice holds
            body["precision"] = spec.precision
        answer = await self._client.post("/models/load", body)
        for each in answer.get("roles", (role,)):  # another role may change along with it
            self._events.append(codec.read_loaded(str(each), answer["loaded"], server.host))

    async def _unload(self, role: str) -> None:
        server = await self._probe()
        if not server.manage:
            raise RemoteError(f"Models of {server.host} cannot be unloaded from here.")
        answer = await self._client.post("/models/unload", {"role": role})
        roles = tuple(map(str, answer.get("roles", (role,))))  # roles may share weights
        self._events.append(Unloaded(roles, server.title, 0, 0))


class _Run:
    """Holds one run, and counts its steps for the `Finished` of one that is cancelled here.

    Attributes:
        id: Its number here.
        request: The request.
        task: Decodes it.
        remote_id: Its id on an edge-tui server, once it has begun.
    """

    def __init__(self, id: int, request: Request, post: Callable[[Event], None]) -> None:
        self.id, self.request, self._post = id, request, post
        self.task: asyncio.Task[None] | None = None
        self.remote_id = ""
        self._steps = 0
        self._wait = self._first = self._last = 0.0

    def post(self, event: Event) -> None:
        """Passes an event on."""
        if isinstance(event, TokenBatch) and len(event):
            self._last = time.perf_counter()
            self._first = self._first or self._last
            self._steps += len(set(event.step.tolist()))
        elif isinstance(event, FirstToken):
            self._wait = event.seconds
        self._post(event)

    def post_cancelled(self) -> None:
        """Posts the end of a run that was cancelled."""
        self._post(Finished(self.id, "cancelled", self._steps, self._wait, self._last - self._first))


def _explain(error: Exception, run: int | None) -> Failed:
    """Turns an error into a sentence; the traceback of one of the program's goes to the log."""
    if isinstance(error, RemoteError | RequestError):
        return Failed(str(error), run, error.field, code=error.code)
    if isinstance(error, CannotExplain):
        return Failed(str(error), run, code=error.code)
    detail = "".join(traceback.format_exception(error))
    return Failed(f"That failed: {type(error).__name__}. The log has the details.", run, detail=detail)
