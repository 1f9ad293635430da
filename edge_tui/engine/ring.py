"""Records on their way from the device to the host, without the host waiting inside the loop."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class Ring:
    """A bounded queue of step records.

    On a GPU each record is copied to pinned memory behind the computation and an event marks its
    arrival; the host reads what has arrived. On a CPU a record is there as soon as it is written.

    Args:
        device: Device type of the run.
        depth: How many steps may be under way before `full` holds the launch loop back.
    """

    def __init__(self, device: str, depth: int = 8) -> None:
        self._asynchronous = device.startswith("cuda")
        self.depth = depth if self._asynchronous else 1
        self._slots: list[tuple[Tensor, Tensor] | None] = [None] * self.depth
        self._waiting: deque[tuple[Any, Tensor, Tensor]] = deque()
        self._next = 0

    @property
    def full(self) -> bool:
        """Whether the next write would overtake the oldest record that was not read."""
        return len(self._waiting) >= self.depth

    @property
    def empty(self) -> bool:
        return not self._waiting

    def write(self, ints: Tensor, floats: Tensor) -> None:
        """Sends one step's record on its way."""
        if not self._asynchronous:
            self._waiting.append((None, ints, floats))
            return
        import torch

        slot = self._slots[self._next]
        if slot is None:
            slot = (
                torch.empty(ints.shape, dtype=ints.dtype, pin_memory=True),
                torch.empty(floats.shape, dtype=floats.dtype, pin_memory=True),
            )
            self._slots[self._next] = slot
        slot[0].copy_(ints, non_blocking=True)
        slot[1].copy_(floats, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        self._waiting.append((event, *slot))
        self._next = (self._next + 1) % self.depth

    def read(self, wait: bool = False) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Takes the records that have arrived, oldest first.

        Args:
            wait: Block until the oldest one is there (used when the ring is full or the run ends).
        """
        arrived = []
        while self._waiting:
            event, ints, floats = self._waiting[0]
            if event is not None:
                if wait:
                    event.synchronize()
                    wait = False
                elif not event.query():
                    break
            self._waiting.popleft()
            # A pinned slot is written again `depth` steps later, so the host keeps a copy.
            arrived.append(
                (ints.numpy().copy(), floats.numpy().copy()) if event else (ints.numpy(), floats.numpy())
            )
        return arrived
