"""Runs a server whose engine also decodes past it: `python -m tests.serve.shared_engine_server`.

Two processes with the same model differ in speed by some percent, and a client in the server's process takes
the interpreter from it. So this process serves, prints its address, and for every line on standard input, a
number of tokens, decodes so many without the server and prints the seconds.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from edge_tui.engine.events import Event, Finished
from edge_tui.engine.port import ModelSpec, Request
from tests.serve import serving

PROMPT = "def main("


class Shared(serving.Watching):
    """An engine whose events go to the server, but during `headless`."""

    def __init__(self, models: dict[str, ModelSpec], wake: Callable[[], None]) -> None:
        self._notify = wake
        self._direct = False
        self._direct_wake = threading.Event()
        super().__init__(models, self._route_wake)

    def _route_wake(self) -> None:
        (self._direct_wake.set if self._direct else self._notify)()

    def poll(self) -> list[Event]:
        return [] if self._direct else super().poll()

    def headless(self, tokens: int) -> float:
        """Seconds from the request to its end, with nobody looking in between."""
        self._direct = True
        began = time.perf_counter()
        self.submit(Request(PROMPT, strategy="greedy", max_length=tokens, watched=False))
        while not any(isinstance(event, Finished) for event in super().poll()):
            self._direct_wake.wait()
            self._direct_wake.clear()
        took = time.perf_counter() - began
        self._direct = False
        return took


if __name__ == "__main__":
    serving.Watching = Shared  # type: ignore[misc]
    with serving.serving() as running:
        assert isinstance(running.engine, Shared)
        print(running.url, flush=True)
        for line in sys.stdin:
            print(running.engine.headless(int(line)), flush=True)
