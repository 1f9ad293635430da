"""Holds a run's live parameters: any host thread writes them, the device reads them a step or two later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_tui.decoders.base import AnyParam, Param, ParamError, Params, Value, numbers, texts
from edge_tui.decoders.temperature import TEMPERATURE

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.port import Request


class HostParams(Params):
    """Reads parameters on a CPU without a torch operation.

    Args:
        names: Of the parameters, in order.
        block: float32 `[P + 1, R]`, one column repeated, a version in the last row.
    """

    def __init__(self, names: Iterable[str], block: Tensor) -> None:
        super().__init__(list(names), block[:-1])
        self._values = dict(zip(names, block.numpy(), strict=False))

    def is_neutral(self, param: Param) -> bool:
        """Tells whether the host's value is the neutral one."""
        return bool(self._values[param.name][0] == param.neutral)


def effective(params: Iterable[AnyParam], values: Mapping[str, float]) -> dict[str, float]:
    """Returns the numbers among parameters as steps use them: a greedy one makes the temperature 0.

    A filter alone would keep every token that is as likely as the likeliest, and draw among them.

    Args:
        params: A strategy's, in order.
        values: Of the numbers among them.
    """
    own = numbers(params)
    is_greedy = any(param.greedy == values[param.name] for param in own)
    return {
        param.name: 0.0 if is_greedy and param.name == TEMPERATURE.name else values[param.name]
        for param in own
    }


class ParamTable:
    """Holds the live parameters of one run.

    A pinned host block `float32[P + 1]` ends in a version number. Each step copies the block to the device,
    a captured one for the step after it, and echoes the version that it used in its record, so the host
    knows the exact token from which a change held, at any queue depth, and a captured graph sees changes
    without being captured again.

    Args:
        params: The strategy's parameters, in order. Texts are not in the table, and `set` refuses them.
        values: Starting values of the numbers.
        rows: Number of rows `R`.
        device: Device that reads the table.
        idle: Gives the numbers of the links that a step leaves out at some values; None leaves none out. A
            change that makes it others is held back until `publish`, and so are those after it.

    Attributes:
        waiting: True while changes are held back.
    """

    def __init__(
        self,
        params: Sequence[AnyParam],
        values: Mapping[str, float],
        rows: int,
        device: str,
        idle: Callable[[Mapping[str, float]], frozenset[int]] | None = None,
    ) -> None:
        import torch

        self._params = {param.name: param for param in numbers(params)}
        self._texts = {param.name: param for param in texts(params)}
        self._lock = threading.Lock()
        self._values = {param.name: values[param.name] for param in self._params.values()}
        self._idle = idle
        self._host = torch.tensor([*self._effective().values(), 0.0], dtype=torch.float32)
        if device.startswith("cuda"):
            self._host = self._host.pin_memory()
        # Other threads write through numpy: it knows no inference mode, and needs no torch call.
        self._block = self._host.numpy()
        self._staging = self._host.to(device, copy=True, non_blocking=True)
        self.block = self._staging[:, None].repeat(1, rows)
        """float32 `[P + 1, R]` on the device: what this step uses, the version in the last row."""
        self.version_row: Tensor = self.block[-1]
        """float32 `[R]`, a view of it."""
        self._cpu_block = self.block.numpy() if self.block.device.type == "cpu" else None
        self.params = self.params_of(self.block)
        self.version = 0
        self._changes: list[tuple[str, float]] = []
        self.waiting = False
        self._publish()

    def params_of(self, block: Tensor) -> Params:
        """Wraps a table of the same shape: the run's own, or a copy of it."""
        return (
            Params(list(self._params), block[:-1])
            if self._cpu_block is None
            else HostParams(self._params, block)
        )

    def restart(self, values: Mapping[str, float]) -> None:
        """Sets another run's starting values; versions count from 0 again."""
        with self._lock:
            self.version = 0
            self._changes.clear()
            self._values = {name: values[name] for name in self._params}
            self._publish()

    def set(self, name: str, value: Value) -> tuple[float, int]:
        """Sets a value; returns it as a float with the version that carries it.

        Raises:
            ParamError: no such parameter, out of range, or fixed for the run.
        """
        known: dict[str, AnyParam] = {**self._params, **self._texts}
        if name not in known:
            raise ParamError(f"There is no parameter {name!r} here; there are {', '.join(known)}.")
        number = known[name].parse_live(value)
        with self._lock:
            self.version += 1
            self._changes.append((name, number))
            self._values[name] = number
            self.waiting |= self._left_out() != self.params.left_out
            if not self.waiting:
                self._publish()
            return number, self.version

    def publish(self) -> None:
        """Lets steps use the changes that are held back; none may be under way."""
        with self._lock:
            self._publish()

    def _publish(self) -> None:
        """Writes the values for the next step."""
        self._block[:] = [*self._effective().values(), self.version]
        self.params.left_out = self._left_out()
        self.waiting = False

    def _left_out(self) -> frozenset[int]:
        """Lists the links that a step leaves out at the present values."""
        return frozenset() if self._idle is None else self._idle(self._effective())

    def _effective(self) -> dict[str, float]:
        """Gives the values as steps use them."""
        return effective(self._params.values(), self._values)

    def known(self) -> dict[str, float]:
        """Returns the numbers as the next step uses them, by name; reads nothing of the device."""
        with self._lock:
            return self._effective()

    def changes_between(self, old: int, new: int) -> dict[str, float]:
        """Returns the parameters that versions `old + 1 … new` changed, with their last values."""
        with self._lock:
            return dict(self._changes[old:new])

    def cpu_version(self) -> float:
        """Reads the version that this step uses, on a CPU, where the host knows it."""
        assert self._cpu_block is not None, "an accelerator's table is not read by the host"
        return float(self._cpu_block[-1, 0])

    def refresh(self) -> None:
        """Brings the host's values to the device, in stream order, without waiting."""
        with self._lock:
            if self._cpu_block is not None:
                self._cpu_block[:] = self._block[:, None]
                return
            self._staging.copy_(self._host, non_blocking=True)
        self.block.copy_(self._staging[:, None].expand_as(self.block))


@dataclass(slots=True)
class Run:
    """Holds what other threads may change of a queued or running generation.

    Attributes:
        id: Its number.
        request: What is decoded.
        beside: The run that it is compared with, and decoded in turn with where that goes on; None for most.
        reads_again: True reads the end of the prompt twice, the second time alone.
        read_alone: True once the last id of the prompt was read alone, by this run or one before.
        cancelled: True once it is to stop.
        table: Its parameters, once it has begun.
    """

    id: int
    request: Request
    beside: int | None = None
    reads_again: bool = False
    read_alone: bool = False
    cancelled: bool = False
    table: ParamTable | None = None
