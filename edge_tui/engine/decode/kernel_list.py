"""Lists the kernels of a run before any weight is read: the run's first steps on tensors without memory.

Model, context and steps are those of the run, on the device "meta". So Triton is asked for each kernel with
the shapes, types and constants that the run has; launches are noted instead of made.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
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
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from edge_tui.engine.port import ModelSpec, Request

META = "meta"
_PROMPT = (0,) * 32
"""Stands for a prompt in a chat template: torch's products read it, as they read most prompts."""
_CONTEXT = 4096
_WARP = 32


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


@dataclass(frozen=True, slots=True)
class Kernel:
    """Holds one kernel of a run: a launch of it, which is never made."""

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


def list_kernels(request: Request, specs: Mapping[str, ModelSpec]) -> list[Kernel]:
    """Lists the kernels that a run launches from its first step to the capture of its graphs.

    Args:
        request: The run. Of its prompt the length counts: few tokens are read by kernels.
        specs: Its models by role.

    Raises:
        EdgeError, …: the run or a model would be refused, too.
    """
    with _noting() as kernels:
        embed(_empty(1, torch.int64), _empty((2, 4)), _empty((1, 4)))  # as `availability` tries one
        _rehearse(request, specs)
    return kernels


def _rehearse(request: Request, specs: Mapping[str, ModelSpec]) -> None:
    """Does what a run does until its graphs are captured."""
    decoder = decoders.find(request.strategy)
    by_spec = {spec: _load(spec) for spec in set(specs.values())}
    models = {role: by_spec[specs[role]] for role in decoder.roles}
    main = models[decoder.roles[0]].checkpoint
    templated = main.chat_template is not None and request.chat is not False
    if templated or not (request.prompt or request.ids):
        request = replace(request, prompt="", ids=_PROMPT)
    request = replace(request, chat=False, prefix=(), prefix_logps=(), prefix_values=())
    generation = Generation(plan_run(request, decoder, models, _never), captures=False)
    generation.prefill(PrefixCache(), lambda done, total: None, _never)
    generation.launch()
    generation.launch()
    runner = generation.runner
    with torch.inference_mode():  # as `Graphs` captures them
        runner.sample(keep_logits=True)
        runner.forward()
        ints, floats = runner.build_record()
        int_slots, float_slots = (each.new_empty(DEPTH, *each.shape) for each in (ints, floats))
        stats.post(ints, floats, int_slots, float_slots, _empty(1, torch.int64))


def _load(spec: ModelSpec) -> LoadedModel:
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
    tokenizer = Tokenizer.open(checkpoint)
    context = min(_CONTEXT, model.info.context)
    return LoadedModel(model, tokenizer, StrategyTokenizer(tokenizer), checkpoint, context)


@contextmanager
def _noting() -> Iterator[list[Kernel]]:
    """Notes each kernel that is launched inside, once, and compiles none."""
    kernels: list[Kernel] = []
    seen: set[tuple[str, Any]] = set()
    run, hook = JITFunction.run, knobs.runtime.jit_cache_hook
    new: list[tuple[str, Any]] = []

    def note(*, key: Any, fn: Any, **_: Any) -> bool:
        new.append((f"{fn.module}.{fn.name}", key))
        return True  # Triton compiles nothing then

    def launch(function: Any, *arguments: Any, **options: Any) -> None:
        options.pop("warmup", None)
        run(function, *arguments, warmup=True, **options)
        if new and (which := new.pop()) not in seen:
            seen.add(which)
            kernels.append(Kernel(function, arguments, options))

    JITFunction.run = launch
    knobs.runtime.jit_cache_hook = note
    try:
        yield kernels
    finally:
        JITFunction.run = run
        knobs.runtime.jit_cache_hook = hook


def _empty(shape: int | Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=META)


def _never() -> bool:
    return False
