"""The devices of this machine and their free memory, asked of the driver rather than of torch.

The models screen shows memory estimates before torch is imported, so memory comes from NVML and psutil. Once
torch is there, what its allocator holds but does not use counts as free.
"""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edge_tui.machine.nvml import Gpu, GpuSample

__all__ = [
    "Device",
    "best_device",
    "cpu_has_bfloat16",
    "cpu_has_half",
    "cpu_has_int8",
    "cpu_has_wide_int8",
    "cpu_packs_int4",
    "devices",
    "free_memory",
    "release_freed_memory",
    "resolve_device",
]


@dataclass(frozen=True, slots=True)
class Device:
    """A place to run models.

    Attributes:
        name: "cuda:0", "mps", "cpu".
        title: The product's name where the driver tells it.
        index: Position among the visible GPUs; 0 for others.
        total: Bytes of memory, None where unknown.
        free: Bytes of it that are free, None where unknown.
    """

    name: str
    title: str
    index: int
    total: int | None
    free: int | None


def devices(ask_torch: bool = False) -> list[Device]:
    """Every device that models can run on, GPUs first.

    Args:
        ask_torch: Where NVML sees no GPU, import torch and ask it (seconds; not for the screen's thread).
    """
    import psutil

    found = []
    for index in range(_gpu_count(ask_torch)):
        sample = _sample(index)
        name = f"cuda:{index}"
        found.append(Device(name, sample.name or name, index, sample.total, free_memory(name)))
    memory = psutil.virtual_memory()
    if _has_mps():
        found.append(Device("mps", "Apple GPU", 0, memory.total, memory.available))
    found.append(Device("cpu", platform.processor() or "CPU", 0, memory.total, free_memory("cpu")))
    return found


def best_device() -> str:
    """The GPU with most free memory, else MPS, else the CPU."""
    return max(devices(ask_torch=True), key=lambda d: (d.name != "cpu", d.name != "mps", d.free or 0)).name


def resolve_device(device: str) -> str:
    """Turns what a user asked for into a device that is there.

    Raises:
        LookupError: it is not; one sentence that says what there is.
    """
    if device == "auto":
        return best_device()
    name = "cuda:0" if device == "cuda" else device
    there = [d.name for d in devices(ask_torch=True)]
    if name in there:
        return name
    why = " (this torch is built without CUDA)" if name.startswith("cuda") and not torch_has_cuda() else ""
    raise LookupError(f"There is no device {device}{why}; there is {', '.join(there)}: choose one or auto.")


def free_memory(device: str) -> int | None:
    """Bytes free on a device, None where nobody tells."""
    if not device.startswith("cuda"):
        return _free_ram()
    index = int(device.partition(":")[2] or 0)
    torch = _torch_with_cuda()
    if torch is None:
        return _sample(index).free
    free = _sample(index).free
    if free is None:
        free = int(torch.cuda.mem_get_info(index)[0])
    return free + int(torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index))


@lru_cache(maxsize=1)
def torch_has_cuda() -> bool:
    """Whether the installed torch can use NVIDIA GPUs, read from its version file without importing it."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    version = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=\n]*=\s*['\"]", version, re.MULTILINE) is not None


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 natively (AMX, AVX-512 BF16, Arm's BF16 extension)."""
    return _cpu_has("amx_bf16|avx512_bf16|bf16")


@lru_cache(maxsize=1)
def cpu_has_int8() -> bool:
    """Whether the processor sums products of four bytes at once (VNNI, AMX)."""
    return _cpu_has("avx512_vnni|avx_vnni|amx_int8")


def release_freed_memory() -> None:
    """Has the C library give what is free between what is in use back to the system, where it can (glibc)."""
    if (trim := _trim()) is not None:
        trim(0)


@lru_cache(maxsize=1)
def _trim() -> Any:
    """The function of glibc for it, or None."""
    import ctypes

    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


@lru_cache(maxsize=1)
def cpu_has_half() -> bool:
    """Whether the processor widens float16 in vectors, as FBGEMM needs it."""
    return _cpu_has("f16c") and _cpu_has("avx2")


@lru_cache(maxsize=1)
def cpu_has_wide_int8() -> bool:
    """Whether it does so in vectors of 512 bits."""
    return _cpu_has("avx512_vnni")


@lru_cache(maxsize=1)
def cpu_packs_int4() -> bool:
    """Whether torch has vector instructions to multiply packed int4 by on this processor."""
    return _cpu_has("avx2")


def _cpu_has(instructions: str) -> bool:
    """Whether Linux says that the processor has one of these sets; False where nobody says."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return re.search(rf"\b({instructions})\b", flags) is not None


def _torch_with_cuda() -> Any:
    """The torch module if it is imported and has initialised CUDA, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return torch if cuda is not None and cuda.is_initialized() else None


def _gpu_count(ask_torch: bool) -> int:
    if not torch_has_cuda():
        return 0
    count = 0
    while _torch_with_cuda() is None and _sample(count) != GpuSample():
        count += 1
    if count == 0 and (ask_torch or "torch" in sys.modules):
        import torch

        return int(torch.cuda.device_count())
    return count


def _sample(index: int) -> GpuSample:
    """A visible GPU as NVML sees it; all None if it is not there or NVML is not."""
    try:
        gpu = Gpu(f"cuda:{index}")
    except OSError:
        return GpuSample()
    try:
        return gpu.sample()
    finally:
        gpu.close()


def _has_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _free_ram() -> int:
    """Bytes a new allocation can have: what the machine has available, at most what the container allows."""
    import psutil

    available = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
        cache = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no control group of version 2, or one without a limit
        return available
    return max(min(available, limit - used + (int(cache[1]) if cache else 0)), 0)
