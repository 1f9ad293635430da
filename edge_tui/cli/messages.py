"""Prints one-line messages; text from outside obeys no terminal."""

from __future__ import annotations

import sys
from typing import TextIO

from edge_tui.util.sanitise import one_line

PROGRAM = "edge-tui"


def print_line(text: str, file: TextIO | None = None) -> None:
    """Prints a text in one line, to standard output unless a file is named."""
    print(one_line(text), file=file)


def fail(sentence: str, status: int = 1) -> int:
    """Prints an error to standard error and returns the exit status."""
    print_line(f"{PROGRAM}: {sentence}", sys.stderr)
    return status
