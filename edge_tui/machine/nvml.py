"""Reads one GPU over NVML field by field; a field that a device does not report is None.

NVML numbers devices by PCI address and knows nothing of `CUDA_VISIBLE_DEVICES`, while "cuda:0" is the first
*visible* one; `visible_devices` translates. CUDA puts the fastest first unless it is told to follow addresses
(`cli/main.py` tells it). Once torch has begun CUDA, the device is found by the UUID that torch knows.
"""

from __future__ import annotations

import os
import sys
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GpuSample:
    """Holds a GPU's state at one moment.

    None: not reported (integrated GPUs, MIG slices, a driver that went away).

    Attributes:
        name: Product name.
        used: Bytes in use by every process, as nvidia-smi counts.
        free: Bytes free.
        total: Bytes in all.
        utilisation: Percent of the last sampling period in which a kernel ran.
        power_watts: Draw now.
        power_limit: Limit in force, in watts.
        temperature: Degrees Celsius.
    """

    name: str | None = None
    used: int | None = None
    free: int | None = None
    total: int | None = None
    utilisation: float | None = None
    power_watts: float | None = None
    power_limit: float | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """Describes a process that uses memory of a GPU.

    Attributes:
        pid: Its number, as the machine (not a container) counts.
        name: The program's name, "" where this user may not read it.
        bytes: Memory of the GPU, None where the driver does not report it.
    """

    pid: int
    name: str
    bytes: int | None


def _uuid_by_torch(index: int) -> str:
    """Returns the UUID of CUDA's device, as torch knows it; "" before torch has begun CUDA."""
    cuda: Any = getattr(sys.modules.get("torch"), "cuda", None)
    if cuda is None or not cuda.is_initialized() or index >= cuda.device_count():
        return ""
    return str(getattr(cuda.get_device_properties(index), "uuid", "")).removeprefix("GPU-")


def visible_devices(env: Mapping[str, str] | None = None) -> list[str] | None:
    """Returns the entries of `CUDA_VISIBLE_DEVICES`, indices and UUIDs in CUDA's order; None if it is unset.

    CUDA stops at the first entry that is no device ("-1" hides all that follow).
    """
    value = (os.environ if env is None else env).get("CUDA_VISIBLE_DEVICES")
    if value is None:
        return None
    entries: list[str] = []
    for entry in (part.strip() for part in value.split(",")):
        if not (entry.isdigit() or entry.startswith(("GPU-", "MIG-"))):
            break
        entries.append(entry)
    return entries


class Gpu:
    """Opens NVML and one device of it.

    Args:
        device: "cuda:N" (the N-th visible device) or a UUID as NVML writes it.

    Raises:
        OSError: NVML is absent, does not fit the kernel's driver, or has no such device.
    """

    def __init__(self, device: str = "cuda:0") -> None:
        try:
            import pynvml
        except ImportError as error:
            raise OSError("NVML's Python binding is not installed") from error
        self._nvml: Any = pynvml
        self._errors = (pynvml.NVMLError, AttributeError, TypeError, ValueError, OSError)
        try:
            pynvml.nvmlInit()
        except self._errors as error:
            raise OSError(f"NVML does not start: {error}") from error
        try:
            self._handle = self._find(device)
        except self._errors as error:
            self.close()
            raise OSError(f"NVML has no device {device}: {error}") from error

    def sample(self) -> GpuSample:
        """Reads every field that the device reports."""
        nvml, handle, read = self._nvml, self._handle, self._read
        memory: Any = read(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
        # The structure's first version, all that older drivers know, counts the driver's own reserve as used.
        memory = memory or read(lambda: nvml.nvmlDeviceGetMemoryInfo(handle))
        return GpuSample(
            name=read(lambda: _text(nvml.nvmlDeviceGetName(handle))),
            used=read(lambda: int(memory.used)),
            free=read(lambda: int(memory.free)),
            total=read(lambda: int(memory.total)),
            utilisation=read(lambda: float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
            power_watts=read(lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000),
            power_limit=read(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000),
            temperature=read(lambda: float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))),
        )

    def processes(self) -> list[GpuProcess]:
        """Lists the other processes that compute on it, of any user, the largest first."""
        nvml, handle = self._nvml, self._handle
        processes = self._read(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle)) or []
        others = [
            GpuProcess(int(each.pid), self._program(int(each.pid)), each.usedGpuMemory)
            for each in processes
            if int(each.pid) != os.getpid()
        ]
        return sorted(others, key=lambda holder: -(holder.bytes or 0))

    def uuid(self) -> str:
        """Returns the device's UUID, "" where it is not reported."""
        return self._read(lambda: _text(self._nvml.nvmlDeviceGetUUID(self._handle))) or ""

    def capability(self) -> tuple[int, int] | None:
        """Returns the compute capability, (9, 0) for Hopper; None where it is not reported."""
        found = self._read(lambda: self._nvml.nvmlDeviceGetCudaComputeCapability(self._handle))
        return None if found is None else (int(found[0]), int(found[1]))

    def driver(self) -> str:
        """Returns the version of the kernel's driver, "" where it is not reported."""
        return self._read(lambda: _text(self._nvml.nvmlSystemGetDriverVersion())) or ""

    def cuda(self) -> str:
        """Returns the newest CUDA that the driver knows, "12.8"; "" where it is not reported."""
        number = self._read(lambda: int(self._nvml.nvmlSystemGetCudaDriverVersion_v2()))
        return f"{number // 1000}.{number % 1000 // 10}" if number else ""

    def _program(self, pid: int) -> str:
        path = self._read(lambda: _text(self._nvml.nvmlSystemGetProcessName(pid)))
        return (path or "").partition(" ")[0].rpartition("/")[2]

    def close(self) -> None:
        """Shuts NVML down."""
        self._read(self._nvml.nvmlShutdown)

    def _read(self, call: Callable[[], T]) -> T | None:
        try:
            return call()
        except self._errors:
            return None

    def _find(self, device: str) -> Any:
        """Finds the handle of a device by number or UUID, as `CUDA_VISIBLE_DEVICES` orders them."""
        uuid = device
        if device.startswith("cuda"):
            index = int(device.partition(":")[2] or 0)
            if (known := _uuid_by_torch(index)) and (found := self._by_uuid(f"GPU-{known}")) is not None:
                return found
            entries = visible_devices()
            if entries is not None and index >= len(entries):
                raise ValueError("hidden by CUDA_VISIBLE_DEVICES")
            uuid = str(index) if entries is None else entries[index]
        if uuid.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(uuid))
        if (found := self._by_uuid(uuid)) is None:
            raise ValueError("not found")
        return found

    def _by_uuid(self, uuid: str) -> Any:
        """Finds the handle whose UUID begins so, as CUDA takes any prefix of one; None if there is none."""
        handles = self._candidates(mig=uuid.startswith("MIG-"))
        return next((h for h in handles if _text(self._nvml.nvmlDeviceGetUUID(h)).startswith(uuid)), None)

    def _candidates(self, *, mig: bool) -> list[Any]:
        nvml = self._nvml
        whole = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
        if not mig:
            return whole
        slices: list[Any] = []
        for handle in whole:
            for i in range(self._read(lambda h=handle: nvml.nvmlDeviceGetMaxMigDeviceCount(h)) or 0):  # type: ignore[misc]
                part = self._read(
                    lambda h=handle, i=i: nvml.nvmlDeviceGetMigDeviceHandleByIndex(h, i)  # type: ignore[misc]
                )
                slices += [] if part is None else [part]
        return slices


def gpu_processes(device: str) -> list[GpuProcess]:
    """Lists the other processes that compute on "cuda:N"; none without NVML."""
    try:
        with closing(Gpu(device)) as gpu:
            return gpu.processes()
    except OSError:
        return []


def _text(value: str | bytes) -> str:
    """Decodes a name; older bindings return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value
