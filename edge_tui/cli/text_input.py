"""Reads a text from a file or from standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from edge_tui.errors import UsageError
from edge_tui.util.user_file import error_reason

_MOST_BYTES = 64_000_000
"""No context holds as much, and a pipe may never end."""


def read_text(file: str | None, what: str) -> str:
    """Reads a text; one newline at its end is not part of it.

    Args:
        file: The file; None and "-" are standard input.
        what: Names the text in messages.

    Raises:
        UsageError: it cannot be read, is no UTF-8, or has more than 64 MB.
    """
    try:
        if file in (None, "-"):
            raw = sys.stdin.buffer.read(_MOST_BYTES + 1)
        else:
            with Path(str(file)).open("rb") as opened:  # a pipe too, which shells make of <(…)
                raw = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error_reason(error)}.") from error
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"the {what} has more than {_MOST_BYTES:,} bytes; give a shorter one.")
    try:
        return raw.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise UsageError(f"the {what} is not UTF-8 (byte {error.start}).") from error
