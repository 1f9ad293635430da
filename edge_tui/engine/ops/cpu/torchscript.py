"""Compiles Python to TorchScript, so that a step's operations run as one call without Python's lock.

Between two operations called from Python, another thread may take the interpreter's lock, and the step waits
for it. torch has deprecated TorchScript, and nothing needs it: without it the same operations run one by one,
with the same numbers, and the log says so once. All uses of `torch.jit` are in this file.

Gain: a step of a small model beside a thread that runs Python takes 32 ms instead of 52 on two busy cores,
and alone 6 % less of the processor's time (`python -m tests.engine.ops.speed_cpu`).
"""

from __future__ import annotations

import logging
import re
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from torch import Tensor

T = TypeVar("T")

_log = logging.getLogger(__name__)


def script(function: Callable[..., T]) -> Callable[..., T] | None:
    """Compiles a function that keeps to the part of Python that TorchScript knows; None where none can."""
    import torch

    return _compiled("A model's step", lambda: torch.jit.script(function))


def trace(
    name: str, step: Callable[..., T], tensors: Iterable[Tensor], others: Iterable[Tensor]
) -> Callable[..., T] | None:
    """Records the operations of a call, to be run again.

    Args:
        name: Of the step, for the log.
        step: Called with copies of both: it changes its arguments.
        tensors: Arguments of the call.
        others: Other numbers of the same shapes.

    Returns:
        None where it cannot be recorded, or does other operations on other numbers.
    """
    import torch

    def record(arguments: Iterable[Tensor]) -> Any:
        copies = tuple(tensor.clone() for tensor in arguments)
        return torch.jit.trace(step, copies, check_trace=False)  # type: ignore[no-untyped-call]

    traces = _compiled(name, lambda: [record(arguments) for arguments in (tensors, others)])
    if traces is None or _operations(traces[0]) != _operations(traces[1]):
        return None
    return cast("Callable[..., T]", traces[0])


def _operations(traced: Any) -> str:
    """Writes a trace without the shapes that its tensors happened to have."""
    return re.sub(r" : \w+\([^)]*\)", "", str(traced.graph))


def as_written() -> AbstractContextManager[None]:
    """Runs compiled functions as they stand.

    Recording shapes first, to rewrite the operations for them, costs more than it gains.
    """
    import torch

    context: AbstractContextManager[None] = torch.jit.optimized_execution(False)  # type: ignore[attr-defined]
    return context


def own_in_cpp(tensors: Iterable[Tensor]) -> object | None:
    """Holds a C++ reference to each tensor, as long as the returned object lives; None without TorchScript.

    A tensor that Python made has an object there. Each time that C++ begins or ceases to own such a tensor
    beside Python, torch tells this object so, and takes the interpreter's lock to do it. Compiled code that
    is called with a tensor does both in every call, and waits for the lock in the middle of its work if
    another thread has it: twenty times in one step of a small model. With a second owner that stays, the
    lock is left alone.
    """
    import torch

    return _compiled("A list of tensors", lambda: torch.jit.script(list(tensors)))


def _compiled(name: str, compile_it: Callable[[], T]) -> T | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compile_it()
    except Exception as error:  # whatever it is, the operations run one by one
        _log_once(name, type(error).__name__, str(error))
        return None


@cache
def _log_once(name: str, kind: str, reason: str) -> None:
    _log.warning("%s is not compiled and runs one operation at a time: %s: %s", name, kind, reason)
