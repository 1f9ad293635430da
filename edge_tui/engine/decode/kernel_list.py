"""Lists the kernels of a run before any weight is read: the run's first steps on tensors without memory.

Model, context and steps are those of the run, on the device "meta". So Triton is asked for each kernel with
the shapes, types and constants that the run has; launches are noted instead of made.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaLauncher
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from edge_tui import decoders
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.known_luck import KnownLuck
from edge_tui.engine.decode.listed_tokenizer import ListedTokenizer
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.run_plan import plan_run
from edge_tui.engine.models.capacity import DEPTH
from edge_tui.engine.models.family import UnsupportedError
from edge_tui.engine.models.loader import LoadedModel
from edge_tui.engine.models.loading import load_flat
from edge_tui.engine.models.memory_estimate import keeps_codes, resolve_precision
from edge_tui.engine.ops.triton import rehearsal, stats
from edge_tui.engine.ops.triton.project import embed
from edge_tui.engine.text.strategy_tokenizer import StrategyTokenizer
from edge_tui.engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from edge_tui.engine.decode.listed_tokenizer import TokenizerFacts
    from edge_tui.engine.decode.step_runner import StepRunner
    from edge_tui.engine.port import ModelSpec, Request

META = "meta"
_PROMPT = (0,) * 32
"""Stands for a prompt in a chat template: torch's products read it, as they read most prompts."""
_CONTEXT = 4096
_WARP = 32
_DYNAMO = "torch._dynamo"


class NoWeights(Weights):
    """Gives tensors of the right shapes without memory. Arguments as of `Weights`."""

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Makes a tensor of this shape."""
        return torch.empty(shape, dtype=self.dtype, device=META)


class _Target:
    """Answers Triton's questions about a GPU of which the compute capability is known alone."""

    def __init__(self, capability: tuple[int, int]) -> None:
        self._target = GPUTarget("cuda", 10 * capability[0] + capability[1], _WARP)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class _NoDynamo(ModuleType):
    """Stands for torch._dynamo, which operations on tensors without memory import to switch it off for them.

    Importing it takes two thirds of what importing torch does (1.0 s of processor time beside 1.5). Whoever
    asks it for anything else gets torch's own.
    """

    @staticmethod
    def disable(function: Any, *_: Any, **__: Any) -> Any:
        """Returns a function as it is."""
        return function

    def __getattr__(self, name: str) -> Any:
        if sys.modules.get(_DYNAMO) is self:
            del sys.modules[_DYNAMO]
        return getattr(import_module(_DYNAMO), name)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Holds one kernel of a run: a launch of it, which is never made.

    Attributes:
        function: Triton's.
        arguments: Of the launch.
        options: The same, by name.
    """

    function: Any
    arguments: tuple[Any, ...]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The function's name."""
        return str(self.function.__name__)

    def compile(self) -> None:
        """Compiles it into Triton's cache folder, unless it is there."""
        kernel = self.function.run(*self.arguments, **self.options, warmup=True)
        with suppress(Exception):  # Triton up to 3.6 compiles a launcher for each signature, too
            CudaLauncher(kernel.src, kernel.metadata)


def stand_for(capability: tuple[int, int]) -> None:
    """Lets tensors without memory stand for those of a GPU from now on: this process is for nothing else."""
    rehearsal.capability = capability
    driver.set_active(_Target(capability))
    if _DYNAMO not in sys.modules:
        setattr(torch, _DYNAMO.rpartition(".")[2], _NoDynamo(_DYNAMO))
        sys.modules[_DYNAMO] = torch._dynamo


def list_kernels(
    request: Request,
    specs: Mapping[str, ModelSpec],
    note: Callable[[Kernel], None],
    ended: Callable[[str], None] = lambda phase: None,
    tokenizers: Mapping[str, TokenizerFacts] | None = None,
) -> None:
    """Lists the kernels that a run launches from its first step to the capture of its graphs.

    Args:
        request: The run. Of its prompt it counts whether it is one token, which kernels read.
        specs: Its models by role.
        note: Called with each kernel as soon as it is found; Triton compiles meanwhile as it always does.
        ended: Called with the first and the second of `PHASES` once their kernels are found.
        tokenizers: What is known of the models' tokenizers, by the models' names.

    Raises:
        EdgeError, …: the run or a model would be refused, too.
    """
    with _Launches(note):
        embed(_empty(1, torch.int64), _empty((2, 4)), _empty((1, 4)))  # as `availability` tries one
        _rehearse(request, specs, ended, tokenizers or {})


def _rehearse(
    request: Request,
    specs: Mapping[str, ModelSpec],
    ended: Callable[[str], None],
    tokenizers: Mapping[str, TokenizerFacts],
) -> None:
    """Does what a run does until its graphs are captured, and what a question about it does beside."""
    decoder = decoders.find(request.strategy)
    by_spec = {spec: _load(spec, tokenizers.get(spec.name)) for spec in set(specs.values())}
    ended("load")
    models = {role: by_spec[specs[role]] for role in decoder.roles}
    main = models[decoder.roles[0]].checkpoint
    templated = main.chat_template is not None and request.chat is not False
    if templated or not (request.prompt or request.ids):
        request = replace(request, prompt="", ids=_PROMPT)
    request = replace(request, chat=False, prefix=(), prefix_logps=(), prefix_values=())
    generation = Generation(plan_run(request, decoder, models, _never), captures=False)
    generation.prefill(PrefixCache(), lambda done, total: None, _never)
    generation.launch()
    ended("first")
    generation.launch()
    runner = generation.runner
    _capture(runner)
    if generation.plan.num_draft_tokens:  # once proposals lose, steps go on without them: one row, not `K`
        runner.proposing = False
        _capture(runner)
    KnownLuck(runner.arguments()[-1], generation.plan.width)  # for questions why a token was taken


def _capture(runner: StepRunner) -> None:
    """Does what a graph of a step consists of (`cuda_graphs.Graphs`)."""
    with torch.inference_mode():
        runner.forward()
        runner.sample(keep_logits=True)
        ints, floats = runner.build_record()
        int_slots, float_slots = (each.new_empty(DEPTH, *each.shape) for each in (ints, floats))
        stats.post(ints, floats, int_slots, float_slots, _empty(1, torch.int64))


def _load(spec: ModelSpec, facts: TokenizerFacts | None) -> LoadedModel:
    """Builds a model without memory.

    Raises:
        EdgeError: it cannot be loaded.
    """
    checkpoint, gpu = open_checkpoint(spec.name), "cuda:0"
    if keeps_codes(checkpoint, spec.precision, gpu):
        raise UnsupportedError(f"The kernels of {checkpoint.format} follow from its codes.")
    precision, dtype = resolve_precision(checkpoint, spec.precision, gpu)
    assert rehearsal.capability is not None, "stand_for comes first"
    if dtype == "bfloat16" and spec.precision != dtype and rehearsal.capability < (8, 0):
        precision, dtype = ("float16" if precision == dtype else precision), "float16"
    model = load_flat(
        checkpoint,
        device=META,
        dtype=getattr(torch, dtype),
        precision=precision,
        context=_CONTEXT,
        weights_from=NoWeights,
    )
    if model.fused is not None and model.weights is not None:
        # The kernels have the layers. A longer prompt is read by plain operations, which take a second here.
        model.weights = replace(model.weights, layers=())
    tokenizer = Tokenizer.open(checkpoint) if facts is None else ListedTokenizer(checkpoint, facts)
    context = min(_CONTEXT, model.info.context)
    return LoadedModel(model, tokenizer, StrategyTokenizer(tokenizer), checkpoint, context)


class _Launches:
    """Finds the kernels that are launched while it is entered, each once, and launches none.

    Args:
        note: Called with each; what it does is not looked at.
    """

    def __init__(self, note: Callable[[Kernel], None]) -> None:
        self._note = note
        self._run, self._hook = JITFunction.run, knobs.runtime.jit_cache_hook
        self._launched: set[object] = set()
        self._seen: set[tuple[str, Any]] = set()
        self._new: list[tuple[str, Any]] = []

    def __enter__(self) -> _Launches:
        def launch(function: Any, *arguments: Any, **options: Any) -> None:
            self._launch(function, arguments, options)

        def note(*, key: Any, fn: Any, **_: Any) -> bool:
            self._new.append((f"{fn.module}.{fn.name}", key))
            return True  # Triton compiles nothing then

        JITFunction.run = launch
        knobs.runtime.jit_cache_hook = note
        return self

    def __exit__(self, *_: object) -> None:
        JITFunction.run = self._run
        knobs.runtime.jit_cache_hook = self._hook

    def _launch(self, function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        options.pop("warmup", None)
        # The same launch is made for each layer, and Triton takes long to find that out.
        launched = function, _looks(arguments), _looks(tuple(sorted(options.items())))
        if launched in self._launched:
            return
        self._launched.add(launched)
        self._run(function, *arguments, warmup=True, **options)
        if self._new and (which := self._new.pop()) not in self._seen:
            self._seen.add(which)
            self.__exit__()
            self._note(Kernel(function, arguments, options))
            self.__enter__()


def _looks(value: Any) -> object:
    """Describes an argument as far as Triton looks at it, and numbers exactly."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.data_ptr() % 16
    if isinstance(value, tuple):
        return tuple(map(_looks, value))
    return type(value), value


def _empty(shape: int | Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _never() -> bool:
    return False
