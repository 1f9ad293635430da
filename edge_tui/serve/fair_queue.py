"""A queue in which nobody's hundred requests stand before somebody else's one."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Lanes that take turns; within a lane the first comes first.

    A lane is whoever waits (a client's address). `pop` serves lanes in rotation, so the wait of a client with
    one request depends on how many clients there are, not on how much another one has asked for.
    """

    def __init__(self) -> None:
        self._lanes: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def push(self, lane: str, item: T) -> None:
        """Puts an item at the end of its lane; a new lane is the last in the rotation."""
        self._lanes.setdefault(lane, deque()).append(item)

    def pop(self) -> T:
        """Takes the next item; its lane goes to the end of the rotation.

        Raises:
            IndexError: the queue is empty.
        """
        if not self._lanes:
            raise IndexError("pop from an empty queue")
        lane, items = self._lanes.popitem(last=False)
        item = items.popleft()
        if items:
            self._lanes[lane] = items
        return item

    def remove(self, lane: str, item: T) -> bool:
        """Takes an item out of its lane; False if it is not there any more."""
        items = self._lanes.get(lane)
        if items is None or item not in items:
            return False
        items.remove(item)
        if not items:
            del self._lanes[lane]
        return True
