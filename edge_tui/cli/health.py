"""Checks the health of the edge-tui in this container: `python -m edge_tui.cli.health`.

The command line of the container's first process tells whether it serves. A server is healthy when its
/health answers 200, anything else while it runs.
"""

from __future__ import annotations

import http.client
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PORT = 8000
TIMEOUT = 5.0
_FIRST = Path("/proc/1/cmdline")


def port_of(command: Sequence[str]) -> int | None:
    """Returns the port that a command line serves on; None if it serves nothing."""
    if "serve" not in command:
        return None
    port = PORT
    for index, word in enumerate(command):
        value = word.partition("=")[2] if word.startswith("--port=") else ""
        if word == "--port":
            value = command[index + 1] if index + 1 < len(command) else ""
        if value.isdigit():
            port = int(value)
    return port


def answers(port: int) -> bool:
    """Tells whether the server on a port of this machine answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """Returns 0 if the container is healthy, else 1."""
    command = _FIRST.read_bytes().decode(errors="replace").split("\0")
    port = port_of(command)
    return 0 if port is None or answers(port) else 1


if __name__ == "__main__":
    sys.exit(main())
