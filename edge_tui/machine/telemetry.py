"""Samples GPU, memory and CPU once a second in a thread of its own.

A driver can take seconds to answer, or never answer again; readers get the last sample.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from edge_tui.machine.nvml import Gpu, GpuSample

RETRY_SECONDS = 30.0
"""Wait before a GPU that could not be read is tried again."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Holds the machine's state at one moment.

    Attributes:
        time: `time.monotonic()` seconds.
        gpu: The sampled GPU; None where none was ever seen, every field None once it can no longer be read.
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


class Telemetry:
    """Samples the machine in the background. No method blocks.

    Args:
        device: "cuda:N" in CUDA's numbering; for others the first GPU is watched until `watch` is called.
        interval: Seconds between samples.
    """

    def __init__(self, device: str = "cuda:0", interval: float = 1.0) -> None:
        self._device = device if device.startswith("cuda:") else "cuda:0"
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

    def watch(self, device: str) -> None:
        """Samples another GPU from the next time on."""
        self._device = device

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
        gpu: Gpu | None = None
        device, retry_at = "", 0.0
        absent: GpuSample | None = None
        while True:
            if device != self._device:
                device, retry_at, absent = self._device, 0.0, None
                if gpu is not None:
                    gpu.close()
                    gpu = None
            if gpu is None and time.monotonic() >= retry_at:
                try:
                    gpu = Gpu(device)
                    absent = GpuSample()
                except OSError:
                    retry_at = time.monotonic() + RETRY_SECONDS
            sample = absent if gpu is None else gpu.sample()
            memory = psutil.virtual_memory()
            self._latest = Sample(
                time=time.monotonic(),
                gpu=sample,
                process_rss=process.memory_info().rss,
                cpu_percent=psutil.cpu_percent(),
                ram_used=memory.total - memory.available,
                ram_total=memory.total,
            )
            if gpu is not None and sample == GpuSample():
                # Nothing at all was readable: the driver went away. A fresh connection may find it again.
                gpu.close()
                gpu, retry_at = None, time.monotonic() + RETRY_SECONDS
            if self._stop.wait(self._interval):
                break
        if gpu is not None:
            gpu.close()
