"""Makes standard output and error UTF-8, and ends a command quietly when nobody reads them any more."""

from __future__ import annotations

import io
import os
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from edge_tui.cli.messages import fail
from edge_tui.util.user_file import error_reason

if TYPE_CHECKING:
    from collections.abc import Callable

CLOSED = 141
"""Exit status after the reader of a pipe has left: 128 and the number of SIGPIPE, as shells know it."""


def prepare() -> None:
    """Opens the streams that a shell has closed (`>&-`), and makes the outputs UTF-8 whatever the locale.

    Half of what a model writes cannot be said in Latin-1. Standard input needs no encoding: `run` reads its
    bytes, and so does Textual.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
    for stream in {sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__}:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def run_and_flush(command: Callable[[], int]) -> int:
    """Runs a command and writes out what its streams still hold.

    What is held until the interpreter ends would fail there, where nothing can say it in a sentence.

    Returns:
        The command's exit status; `CLOSED` if a reader has left.
    """
    try:
        try:
            return command()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        for stream in filter(_is_closed, (sys.stdout, sys.stderr)):
            _discard(stream)
        return CLOSED
    except OSError as error:  # the command has turned its own into a sentence
        _discard(sys.stdout)
        return fail(f"standard output cannot be written ({error_reason(error)}).")


def are_read() -> bool:
    """Tells whether both streams still have readers: a broken pipe is then a fault of the command's own."""
    return not any(map(_is_closed, (sys.stdout, sys.stderr)))


def _is_closed(stream: TextIO) -> bool:
    """Tells whether a stream's reader has left."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return False
    if not hasattr(select, "poll"):
        return True
    watch = select.poll()
    watch.register(number, 0)
    return any(seen & (select.POLLERR | select.POLLHUP) for _, seen in watch.poll(0))


def _discard(stream: TextIO) -> None:
    """Sends what a stream still holds nowhere: the interpreter must not complain about it on its way out."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
