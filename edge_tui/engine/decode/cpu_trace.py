"""Compiles the choice and the record of a token into one call, for a CPU.

A choice is some fifty operations on the vocabulary. Called from Python, each of them gives the interpreter's
lock away and takes it back, and beside a screen that paints it may have to wait for it each time. Traced,
they are one call that runs without the lock from the first to the last: the same operations in the same
order, so that tokens and numbers are the same to the last bit.

Writing a step down takes as long as some dozens of steps, so one that ran seldom runs operation by operation:
a short answer ends before a trace would pay.

A trace writes down what was done once, not why. So a strategy is traced only where it is proven to do the
same operations whatever the numbers are (`decoders.core.steady`), where two traces on different numbers are
equal, and once for each set of parameters that do nothing, since stages whose parameters do nothing are left
out.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edge_tui.decoders.base import Decoder, Output, numbers
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.core.steady import why_unsteady
from edge_tui.engine.decode.step_record import StepBuffers, build_record, cut, sample
from edge_tui.engine.ops.cpu.torchscript import as_written, own_in_cpp, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from edge_tui.decoders.base import State
    from edge_tui.engine.decode.param_table import ParamTable

STEPS_BEFORE_TRACE = 32
"""Steps of a kind, in all runs together, that run operation by operation before one is traced."""
TRACES_KEPT = 64
"""Traces of a strategy that are kept: each takes some 100 kB, and a server meets ever more kinds of steps."""

_TRACES: WeakKeyDictionary[Decoder, dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor]] | None]]
_TRACES = WeakKeyDictionary()
"""Each strategy's traces by what they depend on; None where there is none."""
_STEPS: WeakKeyDictionary[Decoder, Counter[tuple[Any, ...]]] = WeakKeyDictionary()
"""How many steps of each kind ran operation by operation."""
_UNSTEADY: WeakKeyDictionary[Decoder, str] = WeakKeyDictionary()
"""Why a strategy is not steady; "" for one that is."""
_log = logging.getLogger(__name__)


class TracedChoice:
    """Runs `sample` and `build_record` of one run as one traced call.

    Args:
        decoder: A steady strategy.
        state: Its state.
        table: The run's parameters.
        buffers: The run's buffers.
        width: Vocabulary `V` that logits are cut to.

    Attributes:
        is_possible: False once a step could not be traced.
    """

    is_possible = True

    def __init__(
        self, decoder: Decoder, state: State, table: ParamTable, buffers: StepBuffers, width: int
    ) -> None:
        self._decoder, self._state, self._table, self._width = decoder, state, table, width
        self._tensors = [getattr(buffers, name) for name in StepBuffers.__slots__] + list(state.values())
        self._tensors_in_cpp = own_in_cpp(self._tensors)
        self._traces = _TRACES.setdefault(decoder, {})
        self._steps = _STEPS.setdefault(decoder, Counter())
        self._version: float | None = None
        self._neutral: tuple[bool, ...] = ()
        self._seen: set[tuple[Any, ...]] = set()

    def __call__(self, outs: Mapping[str, Output]) -> tuple[Tensor, Tensor] | None:
        """Chooses and records one step with the parameters that the table holds now.

        Args:
            outs: By stream, logits `[R, 1, V]` or wider, in any precision.

        Returns:
            The record, as `ops.stats.record` lays it out; None, and nothing done, where there is no trace,
            where too few steps of this kind have run yet, or none in this run: its first is inspected.
        """
        layout = self._layout(outs)
        if layout not in self._seen:
            return None
        if layout not in self._traces and self._steps[layout] < STEPS_BEFORE_TRACE:
            return None
        tensors = self._inputs(outs)
        if layout not in self._traces:
            names = {stream: list(output.tensors()) for stream, output in outs.items()}
            while len(self._traces) >= TRACES_KEPT:
                del self._traces[next(iter(self._traces))]
            self._traces[layout] = self._trace(names, tensors)
        traced = self._traces[layout]
        if traced is None:
            self.is_possible = False
            return None
        with as_written():
            return traced(*tensors)

    def note(self, outs: Mapping[str, Output]) -> None:
        """Notes that a step of this kind has run operation by operation."""
        layout = self._layout(outs)
        self._seen.add(layout)
        self._steps[layout] += 1

    def _inputs(self, outs: Mapping[str, Output]) -> list[Tensor]:
        return [*self._tensors, *(t for output in outs.values() for t in output.tensors().values())]

    def _layout(self, outs: Mapping[str, Output]) -> tuple[Any, ...]:
        """Keys the operations of a step: by the parameters that do nothing, and shapes and types."""
        if (version := self._table.cpu_version()) != self._version:
            self._version = version
            self._neutral = tuple(
                self._table.params.is_neutral(param) for param in numbers(self._decoder.params)
            )
        return (self._neutral, self._width, *((t.dtype, t.shape) for t in self._inputs(outs)))

    def _trace(
        self, fields: Mapping[str, list[str]], tensors: list[Tensor]
    ) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """Traces a step on copies of the tensors; `fields` names those of each output."""
        decoder, names, width = self._decoder, list(self._state), self._width
        params = self._table.params_of
        ends = len(StepBuffers.__slots__), len(StepBuffers.__slots__) + len(names)

        def unpack(inputs: Sequence[Tensor]) -> tuple[dict[str, Output], State, StepBuffers]:
            state = dict(zip(names, inputs[ends[0] : ends[1]], strict=True))
            rest = iter(inputs[ends[1] :])
            outs = {
                stream: cut(Output(**{n: next(rest) for n in fields[stream]}), width) for stream in fields
            }
            return outs, state, StepBuffers(*inputs[: ends[0]])

        def step(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            outs, state, buffers = unpack(inputs)
            sampled = sample(decoder, decoder.step, outs, state, params(buffers.block), buffers)
            return build_record(decoder, sampled, state, buffers)

        if decoder not in _UNSTEADY:
            outs, state, buffers = unpack(tensors)
            numbers = Rng(buffers.key, buffers.step)
            _UNSTEADY[decoder] = why_unsteady(decoder, outs, state, self._table.params, numbers)
        if reason := _UNSTEADY[decoder]:
            _log.info("%s runs one operation at a time: %s", decoder.name, reason)
            return None
        # Other logits, and all of them negative: what asks for a sign or an order does something else.
        others = [*tensors[: ends[1]], *(-tensor.flip(-1).abs() - 1 for tensor in tensors[ends[1] :])]
        return trace(decoder.name, step, tensors, others)
