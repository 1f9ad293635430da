"""Lists this machine's devices and their free memory, from the driver rather than from torch.

The models screen shows memory estimates before torch is imported, so memory comes from NVML and psutil. Once
torch is there, what its allocator holds but does not use counts as free.
"""

from __future__ import annotations

import platform
import re
import sys
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.machine.nvml import Gpu, GpuSample

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Device:
    """Describes a device that runs models.

    Attributes:
        name: "cuda:0", "mps", "cpu".
        title: The product's name where the driver reports it.
        total: Bytes of memory, None where unknown.
        free: Bytes of it that are free, None where unknown.
    """

    name: str
    title: str
    total: int | None
    free: int | None


def devices(ask_torch: bool = False) -> list[Device]:
    """Lists every device that models can run on, GPUs first.

    Args:
        ask_torch: Where NVML sees no GPU, import torch and ask it (seconds; not for the screen's thread).
    """
    import psutil

    available = []
    for index in range(_gpu_count(ask_torch)):
        sample = _sample(index)
        name = f"cuda:{index}"
        available.append(Device(name, sample.name or name, sample.total, free_memory(name)))
    memory = psutil.virtual_memory()
    if _has_mps():
        available.append(Device("mps", "Apple GPU", memory.total, memory.available))
    available.append(Device("cpu", platform.processor() or "CPU", memory.total, free_memory("cpu")))
    return available


def best(choices: Iterable[Device]) -> Device:
    """Returns the GPU with most free memory, else MPS, else the CPU."""
    return max(choices, key=lambda d: (d.name != "cpu", d.name != "mps", d.free or 0))


def best_device() -> str:
    """Returns the name of this machine's best device."""
    return best(devices(ask_torch=True)).name


def resolve_device(device: str) -> str:
    """Turns "auto", "cuda" or a device's name into a device that is here.

    Raises:
        LookupError: it is not here; one sentence that names those that are.
    """
    if device == "auto":
        return best_device()
    name = "cuda:0" if device == "cuda" else device
    there = [d.name for d in devices(ask_torch=True)]
    if name in there:
        return name
    no_cuda = name.startswith("cuda") and not torch_cuda_version()
    why = " (this torch is built without CUDA)" if no_cuda else ""
    raise LookupError(f"There is no device {device}{why}; there is {', '.join(there)}: choose one or auto.")


@lru_cache(maxsize=8)
def product_name(device: str) -> str:
    """Returns the product's name of a device, for readers; its own name where nothing reports one."""
    if device == "cpu":
        return _processor()
    if not device.startswith("cuda"):
        return "Apple GPU" if device == "mps" else device
    index = int(device.partition(":")[2] or 0)
    if (torch := _torch_with_cuda()) is not None:
        return str(torch.cuda.get_device_name(index))
    return _sample(index).name or device


@lru_cache(maxsize=8)
def compute_capability(device: str) -> tuple[int, int] | None:
    """Returns an NVIDIA GPU's generation, (9, 0) for Hopper; None where the driver does not report one."""
    try:
        with closing(Gpu(device)) as gpu:
            return gpu.capability()
    except OSError:
        return None


def _processor() -> str:
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine()


def free_memory(device: str) -> int | None:
    """Returns the bytes free on a device, None where the driver does not report them."""
    if not device.startswith("cuda"):
        return _free_ram()
    index = int(device.partition(":")[2] or 0)
    free = _sample(index).free
    torch = _torch_with_cuda()
    if torch is None:
        return free
    if free is None:
        free = int(torch.cuda.mem_get_info(index)[0])
    return free + int(torch.cuda.memory_reserved(index) - torch.cuda.memory_allocated(index))


@lru_cache(maxsize=1)
def torch_cuda_version() -> str:
    """Returns the CUDA that the installed torch is built for, read from its version file; "" for none."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return ""
    version = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^cuda\b[^=\n]*=\s*['\"]([^'\"]+)", version, re.MULTILINE)
    return match[1] if match else ""


@contextmanager
def nvml_kept_open() -> Iterator[None]:
    """Keeps NVML open, inside, where torch could use a GPU: each question would begin and end it, 0.02 s."""
    with ExitStack() as stack:
        if torch_cuda_version():
            with suppress(OSError):
                stack.enter_context(closing(Gpu()))
        yield


def release_freed_memory() -> None:
    """Returns freed memory between blocks in use to the system, where the C library is glibc."""
    import ctypes

    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def cpu_has_bfloat16() -> bool:
    """Tells whether the processor multiplies bfloat16 natively (AMX, AVX-512 BF16, Arm's BF16 extension)."""
    return bool(_cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"})


def cpu_has_int8() -> bool:
    """Tells whether the processor sums products of four bytes at once (VNNI, AMX)."""
    return bool(_cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"})


def cpu_has_half() -> bool:
    """Tells whether the processor widens float16 in vectors, as FBGEMM needs it."""
    return _cpu_flags() >= {"f16c", "avx2"}


def cpu_has_wide_int8() -> bool:
    """Tells whether the processor sums products of bytes in vectors of 512 bits."""
    return "avx512_vnni" in _cpu_flags()


def cpu_packs_int4() -> bool:
    """Tells whether torch has vector instructions for products with packed int4 on this processor."""
    return "avx2" in _cpu_flags()


@lru_cache(maxsize=1)
def _cpu_flags() -> frozenset[str]:
    """Returns the words of Linux' description of the processor, instruction sets among them; else none."""
    try:
        return frozenset(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return frozenset()


def _torch_with_cuda() -> Any:
    """Returns the torch module if it is imported and has initialised CUDA, else None."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return torch if cuda is not None and cuda.is_initialized() else None


def _gpu_count(ask_torch: bool) -> int:
    if not torch_cuda_version():
        return 0
    count = 0
    while _torch_with_cuda() is None and _sample(count) != GpuSample():
        count += 1
    if count == 0 and (ask_torch or "torch" in sys.modules):
        import torch

        return int(torch.cuda.device_count())
    return count


def _sample(index: int) -> GpuSample:
    """Samples a visible GPU over NVML; every field is None without it or without NVML."""
    try:
        with closing(Gpu(f"cuda:{index}")) as gpu:
            return gpu.sample()
    except OSError:
        return GpuSample()


def _has_mps() -> bool:
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _free_ram() -> int:
    """Returns the bytes that an allocation can have: the machine's, at most the container's limit."""
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
