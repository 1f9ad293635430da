"""Starts the process that compiles kernels, on a machine that has none even before it is known which.

What it does first, importing torch and Triton, takes longest and is the same for every run. Imports little,
so that it can be the first thing a command does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

WORKERS = "edge_tui.engine.decode.kernel_workers"
PHASES = "load", "first", "all"
"""Parts of a run that wait for their kernels and those before: loading, the first token, the rest."""
STAMP = "edge-tui-"
"""Beginning of the names of files that note what has been compiled."""
DRIVER = Path("/proc/driver/nvidia")
"""Is there where NVIDIA's driver is loaded."""
_early: list[subprocess.Popen[bytes]] = []
"""The process that was started before it was known which kernels to compile, until somebody takes it."""


def start(module: str = WORKERS) -> subprocess.Popen[bytes]:
    """Starts the program, which waits for a job on its standard input."""
    return subprocess.Popen(
        [sys.executable, "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a group that can be ended whole; ctrl-c is not for it
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},  # no context of a device is made there
    )


def start_early(module: str = WORKERS) -> None:
    """Starts the program where a GPU is, and nothing has been compiled for any run.

    Elsewhere most starts find their kernels, and a second import of torch would only be in their way.
    """
    if may_compile() and not _early and DRIVER.exists() and not _has_stamps():
        _early.append(start(module))


def take(module: str = WORKERS) -> subprocess.Popen[bytes]:
    """Returns the process that was started early, or a new one."""
    return _early.pop() if _early else start(module)


def end_early() -> None:
    """Ends the process that was started early, if nobody has taken it: it is not needed."""
    while _early:
        end(_early.pop())


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and those that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # workers outlive the one that started them
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(BrokenPipeError):
                stream.close()


def may_compile() -> bool:
    """Tells whether kernels can be compiled here, as far as that is known without asking for a GPU."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    interpreted = bool(os.environ.get("TRITON_INTERPRET"))
    return sys.platform == "linux" and not hidden and not interpreted and find_spec("triton") is not None


def cache_folder() -> Path:
    """Returns the folder in which Triton keeps what it has compiled."""
    if folder := os.environ.get("TRITON_CACHE_DIR"):
        return Path(folder)
    return Path(os.environ.get("TRITON_HOME") or Path.home()) / ".triton" / "cache"


def _has_stamps() -> bool:
    """Tells whether the kernels of some run have been compiled."""
    try:
        with os.scandir(cache_folder()) as entries:
            return any(entry.name.startswith(STAMP) for entry in entries)
    except OSError:
        return False
