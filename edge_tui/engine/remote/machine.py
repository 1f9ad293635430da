"""The gauge's samples of the machine that decodes, where that is another one: once a second over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from edge_tui.engine.remote.wire import Wire, WireError
from edge_tui.sanitise import sanitise
from edge_tui.telemetry import GpuSample, Sample

ANSWER_SECONDS = 5.0
"""A server that takes longer to tell is asked again a second later."""
_NAME = 60
"""Most characters of a GPU's name."""


class RemoteTelemetry:
    """`edge_tui.telemetry.Telemetry` of a server of ours. Others tell nothing, and are asked once.

    Args:
        base: Its address, as `edge_tui.engine.remote.wire.base_of` gives it.
        key: What it wants to be shown; "" for none.
        interval: Seconds between samples.
    """

    def __init__(self, base: str, key: str = "", interval: float = 1.0) -> None:
        self._base, self._key, self._interval = base, key, interval
        self.host = urlsplit(base).netloc
        """The machine's name on the screen."""
        self._latest: Sample | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.refusal = ""
        """Why there will be no sample, one sentence; "" as long as there may be one."""

    def start(self) -> None:
        """Begins to ask; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="remote telemetry", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Tells the thread to end; it may still be waiting for the server."""
        self._stop.set()

    def watch(self, device: str) -> None:
        """Nothing: the server watches what its model sits on."""

    def latest(self) -> Sample | None:
        """The last sample; None before the first, and when the server does not answer any more."""
        return self._latest

    def _run(self) -> None:
        asyncio.run(self._ask())

    async def _ask(self) -> None:
        wire = Wire(self._base, self._key)
        try:
            while not self._stop.is_set() and not self.refusal:
                try:
                    self._latest = _sample(await wire.get("/machine", ANSWER_SECONDS))
                except WireError as error:
                    self._latest = None
                    if 400 <= error.status < 500:
                        self.refusal = f"{self.host} does not tell how much memory it has."
                except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
                    self._latest = None
                    self.refusal = f"{self.host} tells something else than how much memory it has."
                await asyncio.to_thread(self._stop.wait, self._interval)
        finally:
            await wire.close()


def _sample(told: Any) -> Sample:
    """What `/machine` says, taken apart with care: it comes from outside.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError: it says something else.
    """
    gpu = told["gpu"]
    return Sample(
        time=time.monotonic(),
        gpu=None if gpu is None else _gpu(gpu),
        process_rss=int(told["process_rss"]),
        cpu_percent=float(told["cpu_percent"]),
        ram_used=int(told["ram_used"]),
        ram_total=int(told["ram_total"]),
    )


def _gpu(told: Any) -> GpuSample:
    def number(name: str) -> float | None:
        value = told.get(name)
        return None if value is None else float(value)

    def whole(name: str) -> int | None:
        value = told.get(name)
        return None if value is None else int(value)

    name = told.get("name")
    return GpuSample(
        None if name is None else sanitise(str(name)[:_NAME], keep_newlines=False),
        whole("used"),
        whole("free"),
        whole("total"),
        number("utilisation"),
        number("power_watts"),
        number("power_limit"),
        number("temperature"),
    )
