"""`edge-tui serve` as a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.waiting import until

COMMAND = [sys.executable, "-m", "edge_tui", "serve"]


class Process:
    """A server process; `url` is known once it listens."""

    def __init__(self, *flags: str, environment: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [*COMMAND, "--port", "0", *flags],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines += iter(self._process.stderr.readline, "")  # consumed as it comes

    @property
    def url(self) -> str:
        found = [match[0] for line in self.lines if (match := re.search(r"http://\S+", line))]
        return found[0] if found else ""

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        status = self._process.wait(seconds)
        self._reader.join(60)
        return status

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)


@contextmanager
def process(*flags: str, environment: dict[str, str] | None = None) -> Iterator[Process]:
    """Runs until the block ends."""
    running = Process(*flags, environment=environment)
    try:
        yield running
    finally:
        running.end()


@contextmanager
def ready(*flags: str, environment: dict[str, str] | None = None) -> Iterator[Process]:
    """The same, once the model is there."""
    with process(*flags, environment=environment) as running:
        until(lambda: "ready\n" in running.lines or running.ended)
        assert "ready\n" in running.lines, running.lines
        yield running
