"""Wakes the server's event loop from the engine's thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class LoopNotifier:
    """Sets an asyncio event from any thread; notifications that nobody has taken yet count as one.

    Polling the engine every millisecond instead would take the interpreter from the decode thread.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._pending = False

    def attach(self) -> None:
        """Binds the notifier to the running event loop; before that notifications are dropped."""
        self._loop = asyncio.get_running_loop()

    def notify(self) -> None:
        """Schedules the event on the loop, unless that is pending already."""
        if not self._pending and self._loop is not None:
            self._pending = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Waits for a notification, at most so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        # In this order: a notification after the second line schedules the event again.
        self._event.clear()
        self._pending = False
