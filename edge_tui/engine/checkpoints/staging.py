"""Copies tensors from mapped files to a GPU through pinned memory.

A copy from pageable memory reads with one thread and waits. Here a piece is read by all of torch's threads
while the one before it crosses the bus: on an H200 machine files in the page cache come at 18 GB/s with four
threads, and at 7.5 GB/s without this. `edge-tui bench figures --only start` shows what a load takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 1 << 24
"""Bytes that are read at once."""
_BUFFERS = 3


class Staging:
    """Copies tensors one after another; the copies are in stream order, and nothing waits for the last.

    Args:
        piece: Bytes of a buffer.
    """

    def __init__(self, piece: int = PIECE) -> None:
        self._piece = piece
        self._buffers: list[Tensor] = []
        self._events: list[Any] = []
        self._turn = 0

    def fits(self, target: Tensor, source: Tensor) -> bool:
        """Tells whether a copy is bytes alone, and enough of them to be worth pieces."""
        same = target.dtype == source.dtype and target.is_contiguous() and source.is_contiguous()
        return same and source.nbytes >= self._piece // 4

    def copy(self, target: Tensor, source: Tensor) -> None:
        """Copies a tensor of the CPU into one on a GPU that it fits.

        Args:
            target: Written.
            source: Of the same shape.
        """
        import torch

        into, read = (each.view(-1).view(torch.uint8) for each in (target, source))
        for at in range(0, len(read), self._piece):
            part = read[at : at + self._piece]
            buffer = self._free_buffer(target)[: len(part)]
            buffer.copy_(part)
            into[at : at + len(part)].copy_(buffer, non_blocking=True)
            if target.is_cuda:
                self._events[self._turn].record(torch.cuda.current_stream(target.device))

    def _free_buffer(self, target: Tensor) -> Tensor:
        """Takes the next buffer, and waits until what it held has arrived."""
        import torch

        self._turn = (self._turn + 1) % _BUFFERS
        if not self._buffers:
            shape = _BUFFERS, self._piece
            self._buffers = list(torch.empty(shape, dtype=torch.uint8, pin_memory=target.is_cuda))
            if target.is_cuda:
                self._events = [torch.cuda.Event() for _ in self._buffers]  # type: ignore[no-untyped-call]
        if self._events:
            self._events[self._turn].synchronize()
        return self._buffers[self._turn]
