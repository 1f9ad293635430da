"""Runs a Python module in a pseudo-terminal, as a user's terminal would show it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Terminal:
    """Reads and types at a pseudo-terminal, in the place of a terminal emulator.

    Attributes:
        process: The program on the other side.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master

    def read(self, seconds: float, limit: int = 65536) -> bytes | None:
        """Reads the program's output; waits at most `seconds` for it, and is None after its end."""
        import select

        if not select.select([self._master], [], [], seconds)[0]:
            return b"" if self.process.poll() is None else None
        try:
            return os.read(self._master, limit)
        except OSError:  # the program has closed its side
            return None

    def write(self, keys: bytes) -> None:
        """Sends keys to the program."""
        os.write(self._master, keys)


@contextmanager
def in_terminal(module: Sequence[str], columns: int, rows: int, **environment: str) -> Iterator[Terminal]:
    """Runs a module with its arguments in a terminal of 24-bit colours; kills it at the end of the block."""
    import pty
    import termios

    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (rows, columns))
    variables = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **environment}
    for name in ("NO_COLOR", "PYTHONDONTWRITEBYTECODE"):  # without bytecode each start would compile the app
        variables.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=slave, stdout=slave, stderr=slave, env=variables, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        os.close(master)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
