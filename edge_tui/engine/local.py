"""Runs models in this process: one owner thread, the only one that ever touches the device.

Loads, unloads and generations are commands in one queue, done one after another. Only a run that is
submitted beside another decodes in turn with it, some steps each. cancel() and set() skip the queue: the
decode loop reads a shared flag and the parameter table at every step.
"""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.decoders.base import ParamError, Value
from edge_tui.decoders.core.errors import problem_of
from edge_tui.decoders.registry.registry import UnknownStrategy
from edge_tui.engine.decode.kernel_build import KernelBuilds
from edge_tui.engine.decode.param_table import Run
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.resolve import find_param
from edge_tui.engine.events import Died, Event, Explained, Failed, Finished, Loaded, Queued, Started
from edge_tui.engine.models.device_memory import memory_of, release_cached_memory
from edge_tui.engine.models.manager import Loader, ModelManager
from edge_tui.engine.out_of_memory import is_out_of_memory, release
from edge_tui.engine.port import Memory, ModelSpec, Question, Request
from edge_tui.errors import Cancelled, EdgeError, RequestError
from edge_tui.util import logs

if TYPE_CHECKING:
    from edge_tui.engine.models.base import LanguageModel

_TURN = 4
"""Steps of a run before the one beside it has its turn."""
_REMEMBERED = 64
"""Runs of which it is known how their prompts were read."""
_ENDED = object()
_SWITCH_INTERVAL = 0.0001
"""Seconds that painting may keep the interpreter while a step waits to be launched (Python: 0.005)."""


class LocalEngine:
    """Implements `edge_tui.engine.port.Engine` with the models of this machine.

    The constructor returns at once; torch is imported by the owner thread.

    Args:
        models: Model by role; loaded on first use.
        load: Brings a model into memory in place of `edge_tui.engine.models.loader.load` (benchmarks).
        wake: Called on the owner thread when there are events, so that nobody has to poll; of a run that is
            not `watched` for its end alone.
    """

    def __init__(
        self,
        models: dict[str, ModelSpec] | None = None,
        load: Loader | None = None,
        wake: Callable[[], None] | None = None,
    ) -> None:
        self._events: deque[Event] = deque()
        self._commands: queue.SimpleQueue[Callable[[], None] | Run | None] = queue.SimpleQueue()
        self._next: deque[Callable[[], None] | Run | None] = deque(maxlen=1)
        """The command that was taken from the queue while a run went on, and comes after it."""
        self._runs: dict[int, Run] = {}
        """Runs and questions that wait or go on."""
        self._last_id = 0
        self._closing = False
        self._wake = wake
        self._prefix_cache, self._question_cache = PrefixCache(), PrefixCache()
        """Contexts of the last run, and of questions about others, until the next run begins."""
        self._beside_cache = PrefixCache()
        """Contexts of a run that is compared with another, until the next run begins."""
        self._read_alone: dict[int, bool] = {}
        """Whether the last id of a run's prompt was read alone, by the run's number."""
        self._manager = ModelManager(self._post, load, models, self._drop_contexts)
        self._kernels = KernelBuilds()
        self._specs = dict(models or {})
        self._thread = threading.Thread(target=self._run_thread, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: Request, beside: int | None = None) -> int:
        """Queues a run for the owner thread."""
        self._last_id += 1
        run = Run(self._last_id, request, beside)
        self._runs[run.id] = run
        self._events.append(Queued(run.id))
        self._commands.put(run)
        return run.id

    def explain(self, question: Question) -> int:
        """Queues a question for the owner thread."""
        self._last_id += 1
        run = Run(self._last_id, question.request)
        self._runs[run.id] = run
        self._commands.put(lambda: self._answer(run, question))
        return run.id

    def set(self, run: int, name: str, value: Value) -> None:
        """Does `Engine.set`. A run that still waits takes the value when it starts."""
        if (state := self._runs.get(run)) is None:
            return
        if state.table is not None:
            state.table.set(name, value)
            return
        number = find_param(state.request.strategy, name).parse(value)
        state.request = replace(state.request, values={**state.request.values, name: number})
        if state.table is not None:  # it has started in between
            state.table.set(name, value)

    def cancel(self, run: int | None = None) -> None:
        """Sets a flag that the decode loop reads at every step; `cancel` skips the queue."""
        for state in list(self._runs.values()):
            if run is None or state.id == run:
                state.cancelled = True

    def assign(self, role: str, spec: ModelSpec) -> None:
        """Cancels the runs that use the role's earlier model, then queues the change."""
        if self._specs.get(role) != spec:
            self._cancel_users(role)
        self._specs[role] = spec
        self._commands.put(lambda: self._manager.assign(role, self._specs[role]))

    def load(self, role: str) -> None:
        """Queues the load of the role's model; a later choice for the role makes it void."""
        spec = self._specs.get(role)

        def stopped() -> bool:
            return self._closing or self._specs.get(role) != spec

        def work() -> None:
            # A later choice for the role makes this load pointless: the last one wins.
            if self._specs.get(role) != spec or spec is None:
                return
            try:
                if self._manager.peek(role) is None:
                    self._kernels.begin(Request(""), {"model": spec})
                with self._kernels.while_loading(stopped):
                    self._manager.get(role, stopped)
            except Exception as error:
                current = self._specs.get(role) == spec
                self._post(replace(failure_of(error, None), role=role if current else ""))

        self._commands.put(work)

    def loaded(self) -> dict[ModelSpec, Loaded]:
        """Lists the models in memory, each with the role that it was loaded for."""
        return self._manager.facts()

    def unload(self, role: str) -> None:
        """Cancels the runs that use the role's model, then queues its release."""
        self._cancel_users(role)
        self._commands.put(lambda: self._manager.unload(role))

    def refusal(self, strategy: str) -> str:
        """Does `Engine.refusal`: every registered strategy runs here."""
        return ""

    def poll(self) -> list[Event]:
        """Empties the queue of events."""
        events: list[Event] = []
        while self._events:
            events.append(self._events.popleft())
        return events

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Decodes with the main model's tokenizer; "" for all ids where none is loaded."""
        tokenizer = self._manager.tokenizer
        if tokenizer is None and (loaded := self._manager.peek("model")) is not None:
            tokenizer = loaded.tokenizer
        return tokenizer.token_strings(ids) if tokenizer is not None else [""] * len(ids)

    def count(self, text: str, control_tokens: bool = False) -> int | None:
        """Encodes a text with the main model's tokenizer.

        None until the tokenizer can read control tokens' names as text; the owner thread prepares that.
        """
        loaded = self._manager.peek("model")
        if loaded is None:
            return None
        tokenizer = loaded.tokenizer
        if not control_tokens and not tokenizer.reads_names and tokenizer.control_in([text]):
            self._commands.put(tokenizer.prepare_names)  # it takes long, and the caller may paint
            return None
        return len(tokenizer.encode(text, control=control_tokens))

    def ids(self, text: str) -> tuple[int, ...] | None:
        """Encodes a text with the main model's tokenizer; the name of a control token is that token."""
        if (loaded := self._manager.peek("model")) is None:
            return None
        tokenizer = loaded.strategy_tokenizer
        named = tokenizer.named()
        return (named[text],) if text in named else tokenizer.encode(text)

    def memory(self) -> Memory:
        """Asks the allocator of the main model's device."""
        loaded = self._manager.peek("model")
        return memory_of(loaded.model.info.device) if loaded else Memory("", None, None)

    def alive(self) -> bool:
        """Tells whether the owner thread runs and `close` was not called."""
        return self._thread.is_alive() and not self._closing

    def close(self, timeout: float = 1.0) -> bool:
        """Cancels all runs, ends the owner thread and waits for it."""
        self._closing = True
        self.cancel()
        self._commands.put(None)
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _cancel_users(self, role: str) -> None:
        """Cancels the runs that use the role's model, in whichever role."""
        spec = self._manager.spec(role)
        for run in list(self._runs.values()):
            roles = decoders.find(run.request.strategy).roles
            if role in roles or (spec and spec in map(self._manager.spec, roles)):
                run.cancelled = True

    def _post(self, event: Event, wake: bool = True) -> None:
        self._events.append(event)
        if wake and self._wake is not None:
            self._wake()

    def _run_thread(self) -> None:
        """Executes one command after another until `close`; the owner thread's function."""
        sys.setswitchinterval(min(sys.getswitchinterval(), _SWITCH_INTERVAL))
        try:
            while (command := self._take_command()) is not None and not self._closing:
                try:
                    self._generate(command) if isinstance(command, Run) else command()
                except Exception as error:
                    self._fail(error, None)
            self._manager.clear()
            self._kernels.close()
        except BaseException as error:
            self._events.append(
                Died(
                    f"The engine stopped: {logs.first_line(error)}. Restart it to go on.",
                    traceback.format_exc(),
                )
            )

    def _take_command(self) -> Callable[[], None] | Run | None:
        """Takes the next command, and waits for one."""
        return self._next.popleft() if self._next else self._commands.get()

    def _generate(self, run: Run) -> None:
        """Decodes a run, and in turn with it one that is submitted beside it.

        All launches go to one stream of the device, in order, and each run has contexts of its own: neither
        sees that there is another.
        """
        self._clear_beside()
        self._question_cache.clear()  # no estimate of a run's memory counts it
        caches = [self._prefix_cache, self._beside_cache]
        if run.beside is not None:
            caches.reverse()  # what it is compared with stays where it is
        live = [self._steps(run, caches[0])]
        while live:
            for steps in tuple(live):
                if next(islice(steps, _TURN - 1, None), _ENDED) is _ENDED:
                    live.remove(steps)
            if len(live) == 1 and run.id in self._runs and (second := self._take_beside(run)) is not None:
                live.append(self._steps(second, caches[1]))

    def _clear_beside(self) -> None:
        """Frees the contexts of the last comparison."""
        if self._beside_cache:
            self._beside_cache.clear()
            if any(each.device.startswith("cuda") for each in self.loaded().values()):
                release_cached_memory()  # captured graphs lie in cycles

    def _take_beside(self, run: Run) -> Run | None:
        """Takes the next command if it is a run beside this one that the models can hold as well."""
        if not self._next and not self._commands.empty():
            self._next.append(self._commands.get())
        command = self._next[0] if self._next else None
        if not isinstance(command, Run) or command.beside != run.id or run.cancelled:
            return None
        loaded = filter(None, map(self._manager.peek, self._manager.roles))
        if not all(each.model.caps.fork for each in loaded):
            return None
        self._next.clear()
        return command

    def _steps(self, run: Run, prefix_cache: PrefixCache) -> Iterator[object]:
        """Decodes a run step by step; whatever goes wrong is posted."""
        from edge_tui.engine.decode.run import run_request

        def post(event: Event) -> None:
            if isinstance(event, Started):
                self._read_alone = dict([*self._read_alone.items(), (run.id, run.read_alone)][-_REMEMBERED:])
            self._post(event, wake=run.request.watched or isinstance(event, Finished | Failed))

        run.reads_again = self._read_alone.get(run.beside or 0, False)
        try:
            yield from run_request(
                run, self._manager, prefix_cache, post, lambda: self._closing, self._kernels
            )
        except BaseException as error:  # a strategy of the user's may raise any, SystemExit too
            self._fail(error, run.id)
        finally:
            self._runs.pop(run.id, None)

    def _answer(self, run: Run, question: Question) -> None:
        from edge_tui.engine.decode.explain import explain_token

        def stopped() -> bool:
            return run.cancelled or self._closing

        caches = (self._prefix_cache, self._beside_cache), self._question_cache
        try:
            self._post(Explained(run.id, explain_token(question, self._manager, *caches, stopped)))
        except Cancelled:
            self._post(Failed("The question was taken back.", run.id, code="cancelled"))
        except BaseException as error:  # a strategy of the user's may raise any, SystemExit too
            self._fail(error, run.id)
        finally:
            self._runs.pop(run.id, None)

    def _drop_contexts(self, model: LanguageModel) -> None:
        for cache in (self._prefix_cache, self._beside_cache, self._question_cache):
            cache.drop_model(model)

    def _fail(self, error: BaseException, run: int | None) -> None:
        """Posts an error; where memory ran out, frees what the error and the caches hold."""
        self._post(failure_of(error, run))
        if is_out_of_memory(error):
            release(error)
            for cache in (self._prefix_cache, self._beside_cache, self._question_cache):
                cache.clear()
            release_cached_memory()


def failure_of(error: BaseException, run: int | None) -> Failed:
    """Turns an error into a code and a sentence for the user; its traceback goes to the log only."""
    field = error.field if isinstance(error, EdgeError | ParamError) else ""
    # A mistake in a request is no fault of the program: there is nothing to look up.
    detail = "" if field else "".join(traceback.format_exception(error))
    if is_out_of_memory(error):
        message = (
            "The device ran out of memory: what was written so far is kept."
            " Choose a shorter context, fewer beams, or a smaller precision."
            if run is not None
            else "The device ran out of memory: choose a shorter context, or a smaller precision or model."
        )
        return Failed(message, run, field, detail, code="out_of_memory")
    if isinstance(error, ParamError | UnknownStrategy):  # `decoders` knows no EdgeError
        return Failed(str(error), run, field, detail, code=RequestError.code)
    if (problem := problem_of(error, decoders.current().is_strategy_file)) is not None:
        problem = replace(problem, sentence=logs.scrub(problem.sentence))
        return Failed(problem.short, run, "", detail, problem, code="strategy_error")
    if isinstance(error, EdgeError):
        return Failed(str(error), run, field, detail, code=error.code)
    if isinstance(error, Cancelled):
        return Failed("The model's loading was stopped.", run, code="cancelled")
    return Failed(f"That failed: {logs.first_line(error)}. The log has the details.", run, field, detail)
