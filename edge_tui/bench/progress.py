"""Shows how far a bench has got: one line on standard error, rewritten on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from math import inf
from typing import TextIO

from edge_tui.util.formatting import bar
from edge_tui.util.safe_stream import write_control
from edge_tui.util.sanitise import sanitise

_BAR = 16


class Progress:
    """Counts steps, and the seconds of the budget.

    Args:
        total: Number of steps.
        budget: Seconds after which nothing new is begun.
        out: Stream to write to; None is standard error.
        quiet: True writes nothing.
    """

    def __init__(
        self, total: int, budget: float = inf, out: TextIO | None = None, quiet: bool = False
    ) -> None:
        self.total = total
        self.done = 0
        self._share = 0.0
        self._began = time.monotonic()
        self._budget = budget
        self._out = sys.stderr if out is None else out
        self._quiet = quiet
        self._what = ""
        self._width = 0

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; 0 when it is spent."""
        return max(0.0, self._budget - time.monotonic() + self._began)

    def step(self, what: str) -> None:
        """Begins the next step."""
        self.done += 1
        self._share = 0.0
        self._what = what
        self._show(self._what)

    def say(self, detail: str, share: float | None = None) -> None:
        """Names the work within a step, and the share of the step that is over, where that is known."""
        if share is not None:  # each measurement of a step counts from 0, but the bar never goes back
            self._share = max(share, self._share)
        self._show(f"{self._what} · {detail}" if self._what else detail)

    def end(self) -> None:
        """Clears the line."""
        if not self._quiet and self._out.isatty() and self._width:
            write_control(self._out, "\r" + " " * self._width + "\r")
            self._width = 0

    def _show(self, what: str) -> None:
        """Rewrites the line, with a bar; where there is no terminal, writes another."""
        if self._quiet:
            return
        what = sanitise(what, keep_newlines=False)
        count = f"{min(self.done, self.total)}/{self.total} " if self.done else ""
        if not self._out.isatty():
            self._out.write(f"{count}{what}{self._eta()}\n")
        else:
            line = f"▕{bar(self._over / max(self.total, 1), _BAR)}▏ {count}{what}{self._eta()}"
            line = line[: shutil.get_terminal_size().columns - 1]  # a wrapped line cannot be rewritten
            write_control(self._out, f"\r{line:<{self._width}}")
            self._width = len(line)
        self._out.flush()

    @property
    def _over(self) -> float:
        """Steps that are over, and the share of the present one."""
        return min(max(0, self.done - 1) + self._share, self.total)

    def _eta(self) -> str:
        """Estimates the rest from the time of the steps so far."""
        if not self._over:
            return ""
        elapsed = time.monotonic() - self._began
        seconds = min(self.left, elapsed / self._over * (self.total - self._over))
        return f" · about {seconds:.0f} s left" if seconds >= 1 else ""
