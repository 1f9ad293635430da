"""Tells whether Triton's kernels run on this machine, by running one."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from threading import Thread
from typing import TYPE_CHECKING

from edge_tui.engine.ops.triton import compiled_ahead, rehearsal
from edge_tui.engine.ops.triton.rehearsal import stands_for_gpu
from edge_tui.util import logs

if TYPE_CHECKING:
    from torch import Tensor


def takes(tensor: Tensor) -> bool:
    """Tells whether the kernels take a tensor: whether it lies on a GPU, and they run there."""
    return (tensor.is_cuda or stands_for_gpu(tensor.device.type)) and available() is None


def is_gpu(device: str) -> bool:
    """Tells whether a device is an NVIDIA GPU, or stands for one."""
    return device.startswith("cuda") or stands_for_gpu(device)


@cache
def hash_triton() -> Thread:
    """Starts to import Triton and to hash its own files in another thread, unless that has begun.

    The key of every kernel in its cache begins with that hash: 0.43 s at the first launch of a process, of
    which the interpreter is held for little. Importing Triton holds it for nearly as long, whenever it is.
    """
    thread = Thread(target=_hash, name="triton-hash", daemon=True)
    thread.start()
    return thread


def _hash() -> None:
    with suppress(Exception):  # then the first launch says what is wrong
        from triton.runtime.cache import triton_key

        triton_key()


@cache
def available() -> str | None:
    """Tells why Triton's kernels do not run here, in one sentence; None if they do.

    The answer comes from running one: Triton needs a C compiler and CUDA's assembler at first use, and only
    a try tells. Under Triton's interpreter (`TRITON_INTERPRET=1`) kernels take tensors of the CPU.
    """
    if rehearsal.capability is not None:
        return None
    try:
        import triton  # noqa: F401
    except ImportError:
        return "The fused kernels need Triton, which is not installed: pip install triton."
    import torch

    from edge_tui.engine.ops.triton import launch
    from edge_tui.engine.ops.triton import project as project_triton

    if not launch.INTERPRETED and not torch.cuda.is_available():
        return "The fused kernels need an NVIDIA GPU, and torch finds none."
    device = "cpu" if launch.INTERPRETED else "cuda"
    compiled_ahead.wait()
    try:
        # Made and compared on the CPU: a GPU would load a kernel for each operation.
        table, out = torch.arange(8.0).view(2, 4), torch.zeros(1, 4).to(device)
        project_triton.embed(torch.ones(1, dtype=torch.int64).to(device), table.to(device), out)
        works = torch.equal(out[0].cpu(), table[1])
    except Exception as error:
        reason = logs.first_line(error)
        return f"Triton could not build a kernel here ({reason}): check that a C compiler is installed."
    return None if works else "Triton's kernels give wrong results here: update Triton and the driver."
