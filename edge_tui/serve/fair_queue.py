"""Queues items by client and serves the clients in rotation."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Keeps one first-in-first-out queue for each client id and pops from them in rotation.

    So the wait of a client with one request depends on how many clients there are, not on how many requests
    another one has sent.
    """

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def push(self, client_id: str, item: T) -> None:
        """Appends an item to its client's queue; a new client is the last in the rotation."""
        self._queues.setdefault(client_id, deque()).append(item)

    def pop(self) -> T:
        """Takes the next item of a queue that is not empty; its client goes to the end of the rotation."""
        client_id, items = self._queues.popitem(last=False)
        item = items.popleft()
        if items:
            self._queues[client_id] = items
        return item

    def remove(self, client_id: str, item: T) -> None:
        """Takes an item out of its client's queue, if it is still there."""
        items = self._queues.get(client_id, deque())
        if item in items:
            items.remove(item)
            if not items:
                del self._queues[client_id]
