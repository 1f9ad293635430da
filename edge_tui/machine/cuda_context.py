"""Makes CUDA's context of a GPU beside the import of torch, which would wait for it afterwards.

The driver's functions are called through ctypes, which lets the interpreter go on. Torch uses the same
context, the device's primary one. Gain: what `torch.cuda.init()` takes after an import, some tenths of a
second; `edge-tui bench figures --only start` measures starts.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from threading import Thread

from edge_tui.machine.devices import devices


def begin_context(device: str, beside: Callable[[], object]) -> Thread | None:
    """Starts a thread that makes the context, where torch is not there yet; whatever fails is left to torch.

    Args:
        device: "cuda:N", or "auto" for the only GPU. Among several the one with most free memory is chosen
            later, and a context takes some of it.
        beside: Called first, where there is such a GPU: begins something else that only one needs.
    """
    if "torch" in sys.modules or device in ("cpu", "mps"):
        return None
    thread = Thread(target=make_context, args=(device, beside), name="cuda-context", daemon=True)
    thread.start()
    return thread


def make_context(device: str, beside: Callable[[], object]) -> None:
    """Makes the context of a GPU, which stays until the process ends. Arguments as of `begin_context`."""
    gpus = [each.name for each in devices() if each.name.startswith("cuda")]
    if gpus and device in ("auto", *gpus):
        beside()
    if device == "auto" and len(gpus) == 1:
        device = gpus[0]
    if device not in gpus:
        return
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return
    index = int(device.partition(":")[2])
    number, context = ctypes.c_int(), ctypes.c_void_p()
    if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(number), index) == 0:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), number)
