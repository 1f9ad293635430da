"""Holds the kernels that a kind of device has for operations on whole rows; an engine provides them.

Torch reads one long row with one multiprocessor of a GPU: a softmax of 152k numbers takes 38 µs on an H200.
`rows`, `best` and `random` ask here first, and use torch operations where there is no kernel. So strategy
files name an operation, and nothing of the device.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor

Statistic: TypeAlias = Literal["greatest", "total", "count", "entropy", "spread", "log_sum_exp", "evenness"]
"""A number of a row, as the function of `rows` of that name computes it."""
Noise: TypeAlias = Literal["bits", "uniform", "gumbel"]
"""Random numbers, as the method of `Rng` of that name computes them."""


@dataclass(frozen=True, slots=True)
class Kernels:
    """Holds functions that compute the same as torch operations, up to the rounding of sums and logarithms.

    Keys are int64 `[R]`, steps int64 `[R]` or `[1]`; an offset is added to each id.

    Attributes:
        softmax: `rows.softmax` of float32 `[…, V]`, or with True `rows.log_softmax`.
        statistic: A function of `rows`, of float32 `[…, V]`.
        reach: `rows.reach` of float32 `[R, V]` and shares float32 `[R, 1]`.
        best: `best.best` of float32 `[R, V]`. It never takes NaN.
        argmax_and_lead: `best.argmax_and_lead` of float32 `[R, V]`. It never takes NaN.
        noise: A method of `Rng`, by ids int64 `[R, N]`, keys, steps and an offset.
        draw: `random.draw_and_margin`, by logits float32 `[R, V]`, keys, steps and an offset.
        repeat_lengths: `repeats.repeat_lengths` of int64 `[R, N]`, N at least 1.
    """

    softmax: Callable[[Tensor, bool], Tensor]
    statistic: Callable[[Tensor, Statistic], Tensor]
    reach: Callable[[Tensor, Tensor], Tensor]
    best: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    argmax_and_lead: Callable[[Tensor], tuple[Tensor, Tensor]]
    noise: Callable[[Noise, Tensor, Tensor, Tensor, int], Tensor]
    draw: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
    repeat_lengths: Callable[[Tensor, int], Tensor]


_provided: dict[str, Kernels] = {}
_unused: ContextVar[bool] = ContextVar("kernels_unused", default=False)


def provide(device: str, kernels: Kernels | None) -> None:
    """Provides the kernels of a kind of device, as torch names it ("cuda"); None takes them away."""
    if kernels is None:
        _provided.pop(device, None)
    else:
        _provided[device] = kernels


@contextmanager
def torch_only() -> Iterator[None]:
    """Leaves kernels unused inside, for a step that is taken once and not captured.

    A kernel is compiled at its first launch, which takes a third of a second, and each later launch takes the
    host as long as four torch operations.
    """
    token = _unused.set(True)
    try:
        yield
    finally:
        _unused.reset(token)


def on_device(device: torch.device) -> Kernels | None:
    """Finds a device's kernels; none inside a trace, which writes down torch operations alone."""
    found = None if _unused.get() else _provided.get(device.type)
    if found is None:
        return None
    import torch

    tracing: bool = torch.jit.is_tracing()  # type: ignore[no-untyped-call,attr-defined]  # it has no types
    return None if tracing else found


def for_rows(x: Tensor) -> Kernels | None:
    """Finds the kernels that read rows such as those of `x [R, V]`, which are float32 and not empty."""
    import torch

    found = on_device(x.device)
    return found if found is not None and x.dtype == torch.float32 and x.numel() > 0 else None
