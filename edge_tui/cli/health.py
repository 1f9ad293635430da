"""Whether the edge-tui of this container is well: `python -m edge_tui.cli.health`, for its health check.

The container's first process says by its command line what it is. A server is well when its /health answers
200, and anything else while it runs.
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
    """The port that a command line serves on; None if it serves nothing."""
    if "serve" not in command:
        return None
    port = PORT
    for place, word in enumerate(command):
        value = word.partition("=")[2] if word.startswith("--port=") else ""
        if word == "--port":
            value = command[place + 1] if place + 1 < len(command) else ""
        if value.isdigit():
            port = int(value)
    return port


def answers(port: int) -> bool:
    """Whether a server on this machine says that it can decode."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> int:
    """0 if all is well, else 1."""
    command = _FIRST.read_bytes().decode(errors="replace").split("\0")
    port = port_of(command)
    return 0 if port is None or answers(port) else 1


if __name__ == "__main__":
    sys.exit(main())
