"""Brings records from the device to the host, without the host waiting inside the loop."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edge_tui.engine.models.capacity import DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor


_AHEAD = 0.025
"""Seconds of work to keep queued: longer than painting holds the interpreter, short enough to throw away."""
_LEAST = 4


class Ring:
    """Queues the records of the steps that are under way.

    On a GPU each record goes to a slot in pinned memory behind the computation and an event marks its
    arrival; the host reads what has arrived. Steps that are launched one operation at a time `write` theirs;
    a graph is the same each time, so what it is to `post` is counted on the device. On a CPU a record is
    there as soon as it is written.

    How many steps may be under way follows from how long they take: enough that the device never runs dry
    while the interpreter is busy elsewhere, no more than can be thrown away when the user stops.

    Args:
        device: Device type of the run.
    """

    def __init__(self, device: str) -> None:
        self._asynchronous = device.startswith("cuda")
        self.depth = DEPTH if self._asynchronous else 1
        """Most steps that may ever be under way."""
        self._slots: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}
        """Pinned memory for `depth` records, by their shapes: integers and floats."""
        self._events: list[Any] = []
        self._pending: deque[tuple[Any, Tensor, Tensor]] = deque()
        if self._asynchronous:
            import torch

            self._device_slot = torch.zeros(1, dtype=torch.int64, device=device)
            """`_next` as the device counts it, without beginning again after the last slot."""
            self._events = [torch.cuda.Event(blocking=True) for _ in range(self.depth)]  # type: ignore[no-untyped-call]
        self.restart()

    def restart(self) -> None:
        """Drops the records of an earlier run that were not read, those under way too."""
        self._pending.clear()
        self._limit, self._last_wait, self._pace = min(_LEAST, self.depth), 0.0, 0.0
        self._since = self._next = 0
        if self._asynchronous:
            self._device_slot.zero_()

    @property
    def full(self) -> bool:
        """True while the host is as far ahead as it may be."""
        return len(self._pending) >= self._limit

    @property
    def empty(self) -> bool:
        """True while no record is under way."""
        return not self._pending

    def write(self, ints: Tensor, floats: Tensor) -> None:
        """Copies one step's record to the host, behind the computation."""
        if not self._asynchronous:
            self._pending.append((None, ints, floats))
            return
        slots = self._slots_of(ints, floats)
        slots[0][self._next].copy_(ints, non_blocking=True)
        slots[1][self._next].copy_(floats, non_blocking=True)
        self._device_slot.add_(1)
        self._expect(slots)

    def post(self, ints: Tensor, floats: Tensor) -> Callable[[], None]:
        """Does `write` as part of a graph, for records of a shape that was written before.

        Returns:
            A function to call after each replay.
        """
        from edge_tui.engine.ops.triton.stats import post

        slots = self._slots[ints.shape + floats.shape]
        post(ints, floats, *slots, self._device_slot)
        return lambda: self._expect(slots)

    def _expect(self, slots: tuple[Tensor, Tensor]) -> None:
        """Notes that a record is under way to the next slot."""
        event = self._events[self._next]
        event.record()
        self._pending.append((event, slots[0][self._next], slots[1][self._next]))
        self._next = (self._next + 1) % self.depth

    def _slots_of(self, ints: Tensor, floats: Tensor) -> tuple[Tensor, Tensor]:
        shape = ints.shape + floats.shape
        if shape not in self._slots:
            import torch

            self._slots[shape] = (
                torch.empty(self.depth, *ints.shape, dtype=ints.dtype, pin_memory=True),
                torch.empty(self.depth, *floats.shape, dtype=floats.dtype, pin_memory=True),
            )
        return self._slots[shape]

    def read(self, wait: bool = False) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """Takes the records that have arrived, oldest first.

        Args:
            wait: Block until the oldest one is there (used when the ring is full or the run ends).
        """
        arrived = []
        waited = wait
        while self._pending:
            event, ints, floats = self._pending[0]
            if event is not None:
                if wait:
                    event.synchronize()
                    wait = False
                elif not event.query():
                    break
            self._pending.popleft()
            # A pinned slot is written again `depth` steps later, so the host keeps a copy.
            arrived.append(
                (ints.numpy().copy(), floats.numpy().copy()) if event else (ints.numpy(), floats.numpy())
            )
        self._since += len(arrived)
        if self._asynchronous and arrived and waited:
            self._update_limit()
        return arrived

    def _update_limit(self) -> None:
        """Sets the limit from the device's pace; called when the host waited for the device."""
        now = time.perf_counter()
        if self._last_wait:
            pace = (now - self._last_wait) / self._since
            self._pace = 0.8 * self._pace + 0.2 * pace if self._pace else pace
            self._limit = max(_LEAST, min(self.depth, int(_AHEAD / self._pace)))
        self._last_wait, self._since = now, 0
