"""Loads torch's shared libraries beside what a command does before it imports torch, which finds them there.

An import holds the interpreter while the system maps, relocates and initialises them, as `ctypes.CDLL` does;
a function of C's that ctypes calls does not. Gain: what that takes of the import, 0.25 s of a processor for
libtorch_cpu alone, as far as something goes on beside; `edge-tui bench figures --only start` measures starts.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

from edge_tui.machine.devices import nvml_kept_open, torch_cuda_version

DRIVER = Path("/dev/nvidiactl")
"""Is there where NVIDIA's driver can be used."""
_BEFORE = "_csv", "_datetime", "_heapq", "_queue", "_socket", "array", "mmap", "psutil", "resource"
"""Modules with libraries of their own that the engine imports: the system loads one library at a time."""
_FIRST = "libcublasLt", "libnvJitLink"
"""Libraries of CUDA's that others would look for at the system's places; torch loads them by path, too."""


def begin_libraries(device: str) -> Thread | None:
    """Starts a thread that loads the libraries, on a machine with a GPU; whatever fails is left to torch.

    The interpreter waits for it when it exits: libraries must not begin while others end.
    """
    if device == "cpu" or "torch" in sys.modules or not DRIVER.exists():
        return None
    thread = Thread(target=load_libraries, name="torch-libraries")
    thread.start()
    return thread


def load_libraries() -> None:
    """Loads libtorch_cuda and what it needs, in the order of torch's import.

    Nothing is loaded where LD_LIBRARY_PATH leads to another CUDA: only torch knows how to pass that by.
    """
    with suppress(ImportError, OSError):
        major = torch_cuda_version().partition(".")[0]
        spec = find_spec("torch")
        if spec is None or spec.origin is None or not major or _finds_cuda():
            return
        folder = Path(spec.origin).parent
        with nvml_kept_open():  # whoever asks NVML meanwhile would wait for its library
            for name in _BEFORE:
                import_module(name)
            for name in _FIRST:
                for file in folder.parent.glob(f"nvidia/*/lib/{name}.so.{major}"):
                    open_library(file)
            if open_library(folder / "lib/libtorch_global_deps.so", ctypes.RTLD_GLOBAL):
                open_library(folder / "lib/libtorch_cuda.so")


def open_library(file: Path, mode: int = 0) -> bool:
    """Loads a library without the interpreter; tells whether that worked."""
    dlopen = ctypes.CDLL(None).dlopen
    dlopen.restype, dlopen.argtypes = ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int)
    return bool(dlopen(os.fsencode(file), mode | os.RTLD_NOW))


def _finds_cuda() -> bool:
    """Tells whether the loader's search path has libraries of CUDA, not of the driver alone."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return any(folder and [*Path(folder).glob("libcudart.so*")] for folder in folders)
