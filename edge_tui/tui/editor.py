"""Opens the prompt in the user's editor while decoding goes on."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.errors import EdgeError
from edge_tui.util import user_file
from edge_tui.util.user_file import LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator


class EditorError(EdgeError):
    """Reports an editor or file that could not be used; one sentence."""

    code = "editor"


def command() -> list[str]:
    """Reads the editor's command from `$VISUAL`, else `$EDITOR`.

    Raises:
        EditorError: neither is set, or what is set cannot be read as a command.
    """
    text = os.environ.get("VISUAL") or os.environ.get("EDITOR") or ""
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if not words:
        raise EditorError("No editor is set: export EDITOR (nano, vim …) before starting edge-tui.")
    return words


def edit(text: str) -> str:
    """Lets the user change a text; call it while the app is suspended.

    Raises:
        EditorError: the editor is missing or failed, or left something unreadable; the text is as it was.
    """
    words = command()
    # A folder of its own, because editors put swap and backup files beside what they edit.
    with tempfile.TemporaryDirectory(prefix="edge-tui-") as folder:
        path = Path(folder) / "prompt.md"
        path.write_text(text, encoding="utf-8", errors="replace")
        try:
            with _interrupts_are_the_editors():
                done = subprocess.run([*words, str(path)], check=False)
        except OSError as error:
            raise EditorError(f"{words[0]} cannot be started: {user_file.error_reason(error)}.") from error
        if done.returncode:
            raise EditorError(f"{words[0]} ended with status {done.returncode}; the prompt is as it was.")
        return read_text(path).removesuffix("\n")


def read_text(path: Path) -> str:
    """Reads a file as a prompt.

    Raises:
        EditorError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        size = path.stat().st_size
        if size > LIMIT:
            raise EditorError(f"{path.name} has {size:,} bytes; a prompt takes at most {LIMIT:,}.")
        return user_file.read_text(path).replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise EditorError(f"{path.name} is not UTF-8 (byte {error.start}).") from error
    except OSError as error:
        raise EditorError(f"{path.name} cannot be read: {user_file.error_reason(error)}.") from error


@contextmanager
def _interrupts_are_the_editors() -> Iterator[None]:
    """Ignores ctrl-c, which the terminal sends to every process, while the editor runs."""
    loop = asyncio.get_running_loop()
    # The loop's own handler would be called later, and leave the app.
    handlers = getattr(loop, "_signal_handlers", {})
    handler = handlers.get(signal.SIGINT)
    if handler is not None:
        loop.remove_signal_handler(signal.SIGINT)
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGINT, before)
        if handler is not None:
            loop.add_signal_handler(signal.SIGINT, handler._callback, *handler._args)
