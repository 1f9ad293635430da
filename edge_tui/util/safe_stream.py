"""Wraps standard output and error so that all that is printed to a terminal is sanitised, by libraries too.

Our own code sanitises text from outside before it prints. The stream catches the rest: a library's warning
that quotes a model's config, a line of ours that forgot.
"""

from __future__ import annotations

import io
import sys
from typing import TextIO

from edge_tui.util.sanitise import sanitise


class SafeStream(io.TextIOWrapper):
    """Sanitises every text that is written, so that a terminal obeys none of it."""

    def write(self, text: str, /) -> int:
        """Writes a text without control characters."""
        super().write(sanitise(text, tab="\t"))
        return len(text)

    def control(self, text: str) -> None:
        """Writes a text with control sequences of our own."""
        super().write(text)


def guard_terminal() -> None:
    """Replaces standard output and standard error by safe ones where they are terminals."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper) and not isinstance(stream, SafeStream) and stream.isatty():
            stream.flush()
            safe = SafeStream(stream.buffer, "utf-8", "replace", line_buffering=True)
            setattr(sys, name, safe)


def write_control(stream: TextIO, text: str) -> None:
    """Writes a text with control sequences of our own (line starts, colours) to a stream and flushes it."""
    if isinstance(stream, SafeStream):
        stream.control(text)
    else:
        stream.write(text)
    stream.flush()
