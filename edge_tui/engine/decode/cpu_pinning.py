"""A processor of its own for the thread that decodes, as long as nobody else wants it.

Beside a screen the decode thread is woken some hundred times a second. Where it wakes on another processor
than it slept on, that one's cache holds nothing of the model, and reading it anew costs a small model as much
as the painting does. So it stays where it is. A processor that others use as well would be a bad place to
stay: how long the thread waited for its turn is looked at, and where that is more than a little, it goes
where the system puts it, and stays there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

_STAT = Path("/proc/thread-self/stat")
_SCHEDSTAT = Path("/proc/thread-self/schedstat")


class CpuPinning:
    """Keeps the calling thread on a processor, inside a `with` block in which `look` is called often.

    Elsewhere than on Linux, and where there is one processor only, it does nothing.
    """

    EVERY: ClassVar[float] = 0.05
    """Seconds between two looks."""
    SHARE: ClassVar[float] = 0.1
    """How much of the time it may wait for its turn before it moves."""
    AWAY: ClassVar[float] = 0.5
    """Seconds for which the system then puts it where it likes."""

    def __init__(self) -> None:
        self._allowed: set[int] = set()
        self._next = 0.0
        self._since = 0.0
        self._waited = 0.0
        self.taken = False
        """Whether the thread stays on one processor at present."""

    def __enter__(self) -> CpuPinning:
        try:
            _here(), _waited()
            self._allowed = os.sched_getaffinity(0)
        except (AttributeError, OSError, ValueError, IndexError):
            self._allowed = set()
        return self

    def __exit__(self, *error: object) -> None:
        if self.taken:
            self._go(self._allowed)
            self.taken = False

    def look(self, now: float) -> None:
        """Sits down or moves on, where it is time for that; `now` in seconds."""
        if now < self._next or len(self._allowed) < 2:
            return
        waited = _waited()
        if not self.taken:
            self.taken = self._go({_here()})
        elif waited - self._waited > self.SHARE * (now - self._since):
            self._go(self._allowed)
            self.taken = False
        self._next = now + (self.EVERY if self.taken else self.AWAY)
        self._since, self._waited = now, waited

    def _go(self, where: set[int]) -> bool:
        try:
            os.sched_setaffinity(0, where)
        except OSError:  # the processor was taken away from us meanwhile
            self._allowed = set()
            return False
        return True


def _here() -> int:
    """The processor that the calling thread runs on."""
    # The name, in parentheses, may hold anything; `processor` is the 39th field, the name the second.
    return int(_STAT.read_text().rpartition(")")[2].split()[36])


def _waited() -> float:
    """Seconds for which the calling thread has waited for a processor, ready to run, since it began."""
    return int(_SCHEDSTAT.read_text().split()[1]) / 1e9
