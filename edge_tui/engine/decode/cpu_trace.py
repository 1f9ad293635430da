"""Compiles the choice and the record of a token into one call, for a CPU.

A choice is some fifty operations on the vocabulary. Called from Python, each of them gives the interpreter's
lock away and takes it back, and beside a screen that paints it may have to wait for it each time. Traced,
they are one call that runs without the lock from the first to the last: the same operations in the same
order, so that tokens and numbers are the same to the last bit.

A trace writes down what was done once, not why. So only strategies are traced whose class says that it is
`traceable`, and once for each set of parameters that do nothing, since stages whose parameters do nothing
are left out.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edge_tui.decoders.base import Decoder, Output, numbers
from edge_tui.engine.decode.step_record import StepBuffers, build_record, cut, sample
from edge_tui.engine.ops.cpu.torchscript import as_written, own_in_cpp, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from edge_tui.decoders.base import State
    from edge_tui.engine.decode.param_table import ParamTable

_TRACES: WeakKeyDictionary[Decoder, dict[tuple[Any, ...], Callable[..., tuple[Tensor, Tensor]] | None]]
_TRACES = WeakKeyDictionary()
"""Each strategy's traces by what they depend on; None where tracing failed."""


class TracedChoice:
    """Runs `sample` and `build_record` of one run as one traced call.

    Args:
        decoder: A traceable strategy.
        state: Its state.
        table: The run's parameters.
        buffers: The run's buffers.
        width: Vocabulary `V` that logits are cut to.
    """

    def __init__(
        self, decoder: Decoder, state: State, table: ParamTable, buffers: StepBuffers, width: int
    ) -> None:
        self._decoder, self._state, self._table, self._width = decoder, state, table, width
        self._tensors = [getattr(buffers, name) for name in StepBuffers.__slots__] + list(state.values())
        self._tensors_in_cpp = own_in_cpp(self._tensors)
        self._traces = _TRACES.setdefault(decoder, {})
        self._version: float | None = None
        self._neutral: tuple[bool, ...] = ()

    def __call__(self, outs: Mapping[str, Output]) -> tuple[Tensor, Tensor] | None:
        """Chooses and records one step with the parameters that the table holds now.

        Args:
            outs: By stream, logits `[R, 1, V]` or wider, in any precision.

        Returns:
            The record, as `ops.stats.record` lays it out; None, and nothing done, where there is no trace.
        """
        if (version := self._table.cpu_version()) != self._version:
            self._version = version
            self._neutral = tuple(
                self._table.params.is_neutral(param) for param in numbers(self._decoder.params)
            )
        fields = {stream: output.tensors() for stream, output in outs.items()}
        tensors = (*self._tensors, *chain.from_iterable(each.values() for each in fields.values()))
        layout = (self._neutral, self._width, *((t.dtype, t.shape) for t in tensors))
        if layout not in self._traces:
            names = {stream: list(each) for stream, each in fields.items()}
            self._traces[layout] = self._trace(names, [t.clone() for t in tensors])
        traced = self._traces[layout]
        if traced is None:
            return None
        with as_written():
            return traced(*tensors)

    def _trace(
        self, fields: Mapping[str, list[str]], tensors: list[Tensor]
    ) -> Callable[..., tuple[Tensor, Tensor]] | None:
        """Traces a step on copies of the tensors, which it changes; `fields` names those of each output."""
        decoder, names, width = self._decoder, list(self._state), self._width
        params = self._table.params_of
        ends = len(StepBuffers.__slots__), len(StepBuffers.__slots__) + len(names)

        def step(*inputs: Tensor) -> tuple[Tensor, Tensor]:
            buffers = StepBuffers(*inputs[: ends[0]])
            state = dict(zip(names, inputs[ends[0] : ends[1]], strict=True))
            rest = iter(inputs[ends[1] :])
            outs = {
                stream: cut(Output(**{n: next(rest) for n in fields[stream]}), width) for stream in fields
            }
            choice = sample(decoder, decoder.step, outs, state, params(buffers.block), buffers)
            return build_record(decoder, choice, next(iter(outs.values())).logits[:, -1], buffers)

        return trace(decoder.name, step, tensors)
