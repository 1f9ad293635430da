"""How the engine's thread tells the event loop that there is something to take."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class LoopNotifier:
    """Rung from any thread, heard on one event loop.

    Looking every millisecond instead would take the interpreter from the thread that decodes.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heard = asyncio.Event()
        self._rung = False

    def attach(self) -> None:
        """Lets the running event loop hear it."""
        self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """There is news. Rings before anybody listens, or before the last one was heard, are as one."""
        if not self._rung and self._loop is not None:
            self._rung = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._heard.set)

    async def wait(self, seconds: float) -> None:
        """Returns when it was rung since the last call, or after so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._heard.wait()
        # In this order: what rings after the second line finds a listener again.
        self._heard.clear()
        self._rung = False
