"""Names a process so that no other has the name, also after a restart of the machine."""

from __future__ import annotations

import os
import socket

TIMEOUT = 60.0
"""Seconds without a heartbeat after which a process on another machine is taken for dead."""
_TOLERANCE = 1.0
"""Seconds by which two readings of a process's start may differ."""


def host() -> str:
    """Returns the name of this machine."""
    return socket.gethostname()


def own() -> str:
    """Returns the name of this process: host, number and the moment of its start."""
    import psutil

    return f"{host()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def is_alive(identity: str, heartbeat: float, now: float) -> bool:
    """Tells whether that process still runs.

    Args:
        identity: From `own`.
        heartbeat: Its newest sign of life, in seconds since 1970; decides for processes of other machines.
        now: The same clock.
    """
    import psutil

    rest, _, began = identity.rpartition("/")
    machine, _, pid = rest.rpartition("/")
    if machine != host():
        return now - heartbeat < TIMEOUT
    try:
        return abs(psutil.Process(int(pid)).create_time() - float(began)) <= _TOLERANCE
    except (psutil.Error, ValueError):
        return False
