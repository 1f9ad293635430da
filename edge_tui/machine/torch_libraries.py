"""Loads torch's shared libraries beside what a command does before it imports torch, which finds them there.

An import holds the interpreter while the system maps, relocates and initialises them; ctypes lets it go on.
Gain: what that takes of the import, 0.2 s of processor time for libtorch_cpu alone;
`edge-tui bench figures --only start` measures starts.
"""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

from edge_tui.machine.devices import torch_cuda_version

DRIVER = Path("/dev/nvidiactl")
"""Is there where NVIDIA's driver can be used."""
_FIRST = "libcublasLt", "libnvJitLink"
"""Libraries of CUDA's that others would look for at the system's places; torch loads them by path, too."""


def begin_libraries() -> Thread | None:
    """Starts a thread that loads them, on a machine with a GPU; whatever fails is left to torch.

    The interpreter waits for it when it exits: libraries must not begin while others end.
    """
    if "torch" in sys.modules or not DRIVER.exists():
        return None
    thread = Thread(target=load_libraries, name="torch-libraries")
    thread.start()
    return thread


def load_libraries() -> None:
    """Loads libtorch_cuda and what it needs, in the order of torch's import.

    Nothing is loaded where LD_LIBRARY_PATH leads to another CUDA: only torch knows how to pass that by.
    """
    with suppress(OSError):
        spec, major = find_spec("torch"), torch_cuda_version().partition(".")[0]
        if spec is None or spec.origin is None or not major or _finds_cuda():
            return
        folder = Path(spec.origin).parent
        for name in _FIRST:
            for file in folder.parent.glob(f"nvidia/*/lib/{name}.so.{major}"):
                ctypes.CDLL(str(file))
        ctypes.CDLL(str(folder / "lib/libtorch_global_deps.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(folder / "lib/libtorch_cuda.so"))


def _finds_cuda() -> bool:
    """Tells whether the loader's search path has libraries of CUDA, not of the driver alone."""
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return any(folder and [*Path(folder).glob("libcudart.so*")] for folder in folders)
