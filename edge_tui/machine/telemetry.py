"""Samples GPU, memory and CPU once a second in a thread of its own.

A driver can take seconds to answer, or never answer again; readers get the last sample.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from edge_tui.machine.nvml import Gpu, GpuSample

RETRY_SECONDS = 30.0
"""Wait before a GPU that could not be read is tried again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds the machine's state at one moment.

    Attributes:
        time: `time.monotonic()` seconds.
        gpu: The sampled GPU; None where none was ever seen, every field None once it can no longer be read.
        others: The GPUs that are watched beside it.
        process_rss: Bytes of this process in memory.
        cpu_percent: Of all cores together, 0–100.
        ram_used: Bytes that are not available to a new process.
        ram_total: Bytes in all.
    """

    time: float
    gpu: GpuSample | None
    process_rss: int
    cpu_percent: float
    ram_used: int
    ram_total: int
    others: tuple[GpuSample, ...] = ()


class OnDevice(Protocol):
    """Lies on a device, as a model in memory does."""

    @property
    def device(self) -> str:
        """Its name: "cuda:0", "cpu"."""


def gpus_of(models: Iterable[OnDevice]) -> tuple[str, ...]:
    """Lists the GPUs that models lie on, each once."""
    return tuple(dict.fromkeys(model.device for model in models if model.device.startswith("cuda")))


class _WatchedGpu:
    """Samples one GPU, and tries again after a while where it cannot be read."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._gpu: Gpu | None = None
        self._retry_at = 0.0
        self._absent: GpuSample | None = None

    def sample(self) -> GpuSample | None:
        """Returns None where the GPU was never seen, and empty fields once it can no longer be read."""
        if self._gpu is None and time.monotonic() >= self._retry_at:
            try:
                self._gpu, self._absent = Gpu(self.device), GpuSample()
            except OSError:
                self._retry_at = time.monotonic() + RETRY_SECONDS
        if self._gpu is None:
            return self._absent
        sample = self._gpu.sample()
        if sample == GpuSample():
            # Nothing at all was readable: the driver went away. A fresh connection may find it again.
            self.close()
            self._retry_at = time.monotonic() + RETRY_SECONDS
        return sample

    def close(self) -> None:
        """Leaves the driver."""
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None


class Telemetry:
    """Samples the machine in the background. No method blocks.

    Args:
        device: "cuda:N" in CUDA's numbering; for others the first GPU is watched until `watch` is called.
        interval: Seconds between samples.
    """

    def __init__(self, device: str = "cuda:0", interval: float = 1.0) -> None:
        self._devices: tuple[str, ...] = (device if device.startswith("cuda:") else "cuda:0",)
        self._interval = interval
        self._latest: Sample | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.host = ""
        """Name of the machine; "" for this one."""
        self.refusal = ""
        """Reason that there will be no more samples; "" as long as there may be one."""

    def start(self) -> None:
        """Starts the thread; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Signals the thread to end; it may still be waiting for the driver."""
        self._stop.set()

    def watch(self, device: str, *others: str) -> None:
        """Samples another GPU from the next time on, and further ones beside it."""
        self._devices = (device, *others)

    def latest(self) -> Sample | None:
        """Returns the last sample; None before the first."""
        return self._latest

    def _run(self) -> None:
        try:
            self._measure()
        except BaseException:
            # A sample that stands still would look like a machine that does.
            self._latest, self.refusal = None, "the machine is no longer measured"
            raise

    def _measure(self) -> None:
        """Samples once a second until `stop`; the telemetry thread's function."""
        import psutil

        process = psutil.Process()
        psutil.cpu_percent()  # The first call has nothing to compare with.
        gpus: list[_WatchedGpu] = []
        while True:
            if (devices := self._devices) != tuple(gpu.device for gpu in gpus):
                for gpu in gpus:
                    gpu.close()
                gpus = [_WatchedGpu(device) for device in devices]
            sample, *others = [gpu.sample() for gpu in gpus]
            memory = psutil.virtual_memory()
            self._latest = Sample(
                time=time.monotonic(),
                gpu=sample,
                process_rss=process.memory_info().rss,
                cpu_percent=psutil.cpu_percent(),
                ram_used=memory.total - memory.available,
                ram_total=memory.total,
                others=tuple(other or GpuSample() for other in others),
            )
            if self._stop.wait(self._interval):
                break
        for gpu in gpus:
            gpu.close()
