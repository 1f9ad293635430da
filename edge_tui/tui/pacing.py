"""Paces flushes: 30 a second where that is free, 5 on a slow terminal, none onto a full wire.

Painting and decoding share one interpreter: on a machine that decodes on its CPU, a step that needs it waits
while the screen is painted. So the pace also follows what a flush costs.

Textual writes through a thread with a queue of 30 entries; when that is full, the event loop itself
blocks and keys wait behind output that nobody can read any more. So whoever polls the engine asks first:

    self.pacer = Pacer(self.app)
    self.set_interval(Pacer.TICK, self.tick)

    def tick(self) -> None:
        for event in engine.poll(): ...        # always: taking events is cheap and keeps memory level
        if self.pacer.ready():                 # only this makes output
            pane.refresh_tail()

Gain: over a line of 125 kB/s at 120×40 a key's echo takes 40 ms instead of 1.3 s, and the app a tenth of a
processor instead of a sixth (`python -m tools.bench_screen`, then with `--without pace`).
"""

from __future__ import annotations

import select
from time import monotonic, thread_time
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from textual.app import App


class Pacer:
    """Decides at each tick whether to flush, by the terminal's pace and the cost of painting.

    Args:
        app: The running app.
    """

    TICK: ClassVar[float] = 1 / 30
    """Seconds between calls of `ready`: the quickest pace."""
    SLOWEST: ClassVar[float] = 1 / 5
    """Seconds between flushes on a terminal that is slow but not stuck."""
    SHARE: ClassVar[float] = 0.025
    """Share of the interpreter that painting may take before it slows down …"""
    COSTLY: ClassVar[float] = 1 / 7
    """… and the slowest pace, in seconds, that it slows down to for that reason."""

    def __init__(self, app: App[object]) -> None:
        self._app = app
        self._interval = self.TICK
        self._next = 0.0
        self._cost = 0.0
        self._spent = thread_time()

    @property
    def interval(self) -> float:
        """Seconds between flushes at present."""
        return self._interval

    def ready(self) -> bool:
        """Tells whether to flush now. Call it at each tick; True counts as a flush."""
        now = monotonic()
        if now < self._next - self.TICK / 4:
            return False
        if self.busy():
            self._interval = min(self._interval * 1.5, self.SLOWEST)
            return False
        # What this thread has done since the last flush is, but for keys, that flush.
        spent = thread_time()
        self._cost += ((spent - self._spent) - self._cost) / 4
        self._spent = spent
        costly_interval = min(self._cost / self.SHARE, self.COSTLY)
        self._next = now + max(self._interval, costly_interval)
        self._interval = max(self._interval * 0.9, self.TICK)
        return True

    def busy(self) -> bool:
        """Tells whether output still waits, in Textual's writer thread or before the terminal.

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
