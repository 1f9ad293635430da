"""Runs the forwards of a model on another device than the strategy: tokens go there, logits come back.

Torch lets each copy between two GPUs wait for the work before it on both, and what comes after wait for the
copy, so nothing here waits on the host. Tokens and logits keep their addresses for each number of positions.
So the forward between the copies can be a graph of its own device, beside the graphs of the strategy's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from edge_tui.engine.ops.current_device import entered, overwrite

if TYPE_CHECKING:
    from torch import Tensor

Compute = Callable[["Tensor", "Tensor | None"], "Tensor"]
"""Makes logits `[S * R, K, V]` of tokens `[R, K]` and the rows that they continue, if rows move."""


Spans = tuple[int, ...]
"""Positions that attention spans in the contexts of a step; a graph holds for one span."""


@dataclass
class _Shape:
    """Holds the tensors of forwards with as many positions, and their graph once there is one.

    Attributes:
        tokens: int64 `[R, K]` on the model's device.
        parent: int64 `[R]` there; None where rows stay.
        there: Logits where they are computed.
        here: Their copy on the strategy's device.
        replay: Computes `there` anew; None before a capture.
    """

    tokens: Tensor
    parent: Tensor | None
    there: Tensor | None = None
    here: Tensor | None = None
    replay: Callable[[], None] | None = None


class AwayForward:
    """Brings tokens to a model's device, and its logits to the strategy's.

    Args:
        compute: The forward, which enters its device.
        there: The model's device.
        here: The strategy's.
    """

    def __init__(self, compute: Compute, there: str, here: str) -> None:
        self._compute = compute
        self._there, self._here = there, here
        self._shapes: dict[tuple[int, bool, Spans], _Shape] = {}
        self._started: _Shape | None = None

    def clear(self) -> None:
        """Forgets graphs and tensors: the context is another one."""
        self._shapes.clear()

    def start(
        self, tokens: Tensor, parent: Tensor | None, spans: Spans, count: Callable[[int], None]
    ) -> None:
        """Appends tokens.

        A copy of tokens stands in line behind all that their device was given before: so this comes before
        the work there that may go on beside it, and `fetch` after that.

        Args:
            tokens: int64 `[R, K]` on the strategy's device.
            parent: int64 `[R]`, the rows that they continue; None where rows stay.
            spans: What attention spans.
            count: Counts positions that a replay appends.
        """
        key = tokens.shape[1], parent is not None, spans
        if key not in self._shapes:
            rows = None if parent is None else _like(parent, self._there)
            self._shapes[key] = _Shape(_like(tokens, self._there), rows)
        shape = self._shapes[key]
        overwrite(shape.tokens, tokens)
        if shape.parent is not None and parent is not None:
            overwrite(shape.parent, parent)
        if shape.replay is None:
            self._run(shape)
        else:
            count(tokens.shape[1])
            shape.replay()
        self._started = shape

    def fetch(self) -> Tensor:
        """Returns the logits of what was started, on the strategy's device; the next ones overwrite them."""
        shape = self._started
        assert shape is not None, "start comes first"
        there, here = shape.there, shape.here
        assert there is not None
        if here is None or here.shape != there.shape or here.dtype != there.dtype:
            here = shape.here = _like(there, self._here)
        overwrite(here, there)
        return here

    def _run(self, shape: _Shape) -> None:
        shape.there = self._compute(shape.tokens, shape.parent)

    def capture(self, spans: Spans) -> None:
        """Captures the forward of each shape that has run under these spans; later ones are replayed.

        Raises:
            RuntimeError: something in it cannot be captured.
        """
        from edge_tui.engine.ops.cuda_capture import capture

        for (*_, own), shape in self._shapes.items():
            if own == spans and shape.replay is None:
                with entered(self._there):
                    shape.replay = capture(partial(self._run, shape)).replay


def _like(tensor: Tensor, device: str) -> Tensor:
    """Allocates a tensor of the same shape and type on a device."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
