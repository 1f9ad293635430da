"""Which process writes a run: told apart from any other, also after a restart of the machine."""

from __future__ import annotations

import os
import socket
from functools import cache

SILENCE = 60.0
"""Seconds without a sign of life after which a process on another machine is taken for dead."""
_TOLERANCE = 1.0
"""Seconds by which two readings of a process's start may differ."""


@cache
def _host() -> str:
    return socket.gethostname()


def me() -> str:
    """This process: host, number and the moment it was started."""
    return _of(os.getpid())


@cache
def _of(pid: int) -> str:
    import psutil

    return f"{_host()}/{pid}/{psutil.Process(pid).create_time():.2f}"


def alive(owner: str, beat: float, now: float) -> bool:
    """Whether that process still runs.

    Args:
        owner: As `me` named it.
        beat: When it last showed a sign of life, in seconds since 1970; what counts on another machine.
        now: The same clock.
    """
    import psutil

    rest, _, began = owner.rpartition("/")
    host, _, pid = rest.rpartition("/")
    if host != _host():
        return now - beat < SILENCE
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(began)) <= _TOLERANCE
    except (psutil.Error, ValueError):
        return False
