"""When to flush: 30 times a second on a quick terminal, 5 on a slow one, never onto a full wire.

Textual writes through a thread with a queue of 30 entries; when that is full, the event loop itself
blocks and keys wait behind output that nobody can read any more. So whoever polls the engine asks first:

    self.pacer = Pacer(self.app)
    self.set_interval(Pacer.TICK, self.tick)

    def tick(self) -> None:
        for event in engine.poll(): ...        # always: taking events is cheap and keeps memory level
        if self.pacer.ready():                 # only this makes output
            pane.refresh_tail()
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from textual.app import App


class Pacer:
    """Says whether the terminal has taken what it was given, and slows down when it often hasn't.

    Args:
        app: The running app.
    """

    TICK: ClassVar[float] = 1 / 30
    """Seconds between calls of `ready`: the quickest pace."""
    SLOWEST: ClassVar[float] = 1 / 5
    """Seconds between flushes on a terminal that is slow but not stuck."""

    def __init__(self, app: App[object]) -> None:
        self._app = app
        self._interval = self.TICK
        self._next = 0.0

    @property
    def interval(self) -> float:
        """Seconds between flushes at present."""
        return self._interval

    def ready(self) -> bool:
        """Whether to flush now. Call it at each tick; True counts as a flush."""
        now = monotonic()
        if now < self._next - self.TICK / 4:
            return False
        if self.busy():
            self._interval = min(self._interval * 1.5, self.SLOWEST)
            return False
        self._next = now + self._interval
        self._interval = max(self._interval * 0.9, self.TICK)
        return True

    def busy(self) -> bool:
        """Whether output still waits, in Textual's writer thread or before the terminal.

        A terminal whose writer is in the middle of a blocked write is not writable, which an empty queue
        alone would not tell. Where there is no such thread (tests, browsers) nothing ever waits.
        """
        writer = getattr(self._app._driver, "_writer_thread", None)
        if writer is None:
            return False
        if writer._queue.qsize():
            return True
        try:
            _, writable, _ = select.select([], [writer.fileno()], [], 0)
        except (OSError, ValueError):
            # Not a descriptor that can be asked (Windows): the queue's word is enough.
            return False
        return not writable
