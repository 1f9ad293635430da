"""The gauge's samples of the machine that decodes, where that is another one: once a second over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from edge_tui.engine.remote.wire import Wire, WireError
from edge_tui.machine.telemetry import GpuSample, Sample
from edge_tui.util.sanitise import sanitise

T = TypeVar("T")
ANSWER_SECONDS = 5.0
"""A server that takes longer to tell is asked again a second later."""
_NAME = 60
"""Most characters of a GPU's name."""
_MOST = 2.0**60
"""More than any number of these can be."""


class RemoteTelemetry:
    """`edge_tui.machine.telemetry.Telemetry` of a server of ours. Others tell nothing, and are asked once.

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
        """Tells the thread to end, which it does when it wakes next."""
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
                    async with asyncio.timeout(ANSWER_SECONDS):
                        self._latest = _sample(await wire.get("/machine"))
                except Exception as error:  # it comes from outside, and may be anything
                    self._latest = None
                    if not _may_pass(error):
                        self.refusal = "How much memory is in use there is not told."
                await asyncio.sleep(self._interval)
        finally:
            await wire.close()


def _may_pass(error: Exception) -> bool:
    """Whether the server may answer the next time: it is away, or busy."""
    if isinstance(error, WireError):
        return not error.garbled and error.status in (0, 408, 429, 500, 502, 503, 504)
    return isinstance(error, TimeoutError)


def _sample(told: Any) -> Sample:
    """What `/machine` says, taken apart with care: it comes from outside.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError: it says something else.
    """
    return Sample(
        time=time.monotonic(),
        gpu=None if told["gpu"] is None else _gpu(told["gpu"]),
        process_rss=_bytes(told["process_rss"]),
        cpu_percent=_number(told["cpu_percent"]),
        ram_used=_bytes(told["ram_used"]),
        ram_total=_bytes(told["ram_total"]),
    )


def _gpu(told: Any) -> GpuSample:
    def of(name: str, kind: Callable[[Any], T]) -> T | None:
        return None if (value := told.get(name)) is None else kind(value)

    return GpuSample(
        name=of("name", _name),
        used=of("used", _bytes),
        free=of("free", _bytes),
        total=of("total", _bytes),
        utilisation=of("utilisation", _number),
        power_watts=of("power_watts", _number),
        power_limit=of("power_limit", _number),
        temperature=of("temperature", _number),
    )


def _number(value: Any) -> float:
    if not 0 <= (number := float(value)) < _MOST:  # NaN compares false
        raise ValueError(f"{value!r} is no such number")
    return number


def _bytes(value: Any) -> int:
    return int(_number(value))


def _name(value: Any) -> str:
    return sanitise(str(value)[:_NAME], keep_newlines=False)
