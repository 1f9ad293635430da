"""Samples the load of a server's machine once a second over HTTP, for the gauge."""

from __future__ import annotations

import asyncio
import time
from dataclasses import astuple, replace
from typing import Any
from urllib.parse import urlsplit

from edge_tui.engine.remote.http_client import HttpClient, RemoteError
from edge_tui.machine.nvml import GpuSample
from edge_tui.machine.telemetry import Sample, Telemetry
from edge_tui.util.dataclass_json import build
from edge_tui.util.sanitise import sanitise

ANSWER_SECONDS = 5.0
"""Longest wait for a sample; after it the next one is requested."""
_NAME_LENGTH = 60
"""Most characters of a GPU's name."""
_MOST_GPUS = 16
"""Most GPUs beside the first."""
_MAX_NUMBER = 2.0**60
"""Bound on every number of a sample."""


class RemoteTelemetry(Telemetry):
    """Samples the machine of an edge-tui server; others are asked only once.

    Args:
        base: Its address, as `edge_tui.engine.remote.http_client.base_url` returns it.
        key: Its API key; "" for none.
        interval: Seconds between samples.
    """

    def __init__(self, base: str, key: str = "", interval: float = 1.0) -> None:
        super().__init__(interval=interval)
        self._base, self._key = base, key
        self.host = urlsplit(base).netloc

    def watch(self, device: str, *others: str) -> None:
        """Does nothing: the server watches the devices of its models."""

    def _measure(self) -> None:
        asyncio.run(self._sample_until_stopped())

    async def _sample_until_stopped(self) -> None:
        client = HttpClient(self._base, self._key)
        try:
            while not self._stop.is_set() and not self.refusal:
                try:
                    async with asyncio.timeout(ANSWER_SECONDS):
                        self._latest = _read_sample(await client.get("/machine"))
                except Exception as error:  # it comes from outside, and may be anything
                    self._latest = None
                    if not _is_temporary(error):
                        self.refusal = "The server does not report its memory."
                await asyncio.sleep(self._interval)
        finally:
            await client.close()


def _is_temporary(error: Exception) -> bool:
    """Tells whether the server may answer the next time: it is away, or busy."""
    if isinstance(error, RemoteError):
        return not error.malformed and error.status in (0, 408, 429, 500, 502, 503, 504)
    return isinstance(error, TimeoutError)


def _read_sample(data: Any) -> Sample:
    """Reads the JSON of `/machine`, which may hold anything.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError: it is no sample.
    """
    sample = build(Sample, {**data, "time": time.monotonic()})
    _check_numbers(astuple(replace(sample, gpu=None, others=())))
    others = tuple(map(_read_gpu, sample.others[:_MOST_GPUS]))
    return replace(sample, gpu=sample.gpu and _read_gpu(sample.gpu), others=others)


def _read_gpu(gpu: GpuSample) -> GpuSample:
    """Checks the numbers of a GPU, and makes its name harmless.

    Raises:
        ValueError: a number is none.
    """
    _check_numbers(astuple(gpu))
    return replace(gpu, name=gpu.name and sanitise(gpu.name[:_NAME_LENGTH], keep_newlines=False))


def _check_numbers(fields: tuple[Any, ...]) -> None:
    for number in fields:
        if isinstance(number, int | float) and not 0 <= number < _MAX_NUMBER:  # NaN compares false
            raise ValueError(f"{number!r} is no such number")
