"""What a bench says while it works: one line on standard error, rewritten on a terminal."""

from __future__ import annotations

import sys
import time
from math import inf
from typing import TextIO


class Progress:
    """Counts steps, and stops a bench whose time is up.

    Args:
        total: Steps expected.
        budget: Seconds after which nothing new is begun.
        out: Where to; None is standard error.
        quiet: Say nothing.
    """

    def __init__(
        self, total: int, budget: float = inf, out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self.total = total
        self.done = 0
        self._began = time.monotonic()
        self._budget = budget
        self._out = sys.stderr if out is None else out
        self._quiet = quiet
        self._width = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; 0 when it is spent."""
        return max(0.0, self._budget - self.elapsed)

    def step(self, what: str) -> None:
        """Says what is measured next."""
        self.say(f"[{min(self.done + 1, self.total)}/{self.total}] {what}{self._eta()}")
        self.done += 1

    def say(self, line: str) -> None:
        """Rewrites the line; where there is no terminal, writes another."""
        if self._quiet:
            return
        if self._out.isatty():
            self._out.write(f"\r{line:<{self._width}}")
            self._width = len(line)
        else:
            self._out.write(f"{line}\n")
        self._out.flush()

    def end(self) -> None:
        """Leaves the line."""
        if not self._quiet and self._out.isatty() and self._width:
            self._out.write("\r" + " " * self._width + "\r")
            self._out.flush()

    def _eta(self) -> str:
        if not self.done:
            return ""
        seconds = min(self.left, self.elapsed / self.done * max(0, self.total - self.done))
        return f" · about {seconds:.0f} s left" if seconds >= 1 else ""
