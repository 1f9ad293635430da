"""Says on the shell's screen what ended the app, where the details are, and where the prompt is."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message
from textual.worker import WorkerFailed

from edge_tui.tui import unsaved
from edge_tui.util import logs
from edge_tui.util.sanitise import sanitise


@dataclass
class BackgroundFailed(Message):
    """Something in the background has ended by an exception; the app goes on."""

    sentence: str


def stopped(thread: str, error: BaseException) -> str:
    """Writes the log of what ended a thread; returns a sentence about it, safe to show."""
    kept = logs.write_crash(error)
    where = f"details are in {kept}" if kept else "no log could be written"
    return sanitise(f"{thread or 'A thread'} has stopped ({logs.summary(error)}); {where}.")


def report(error: BaseException, prompt: str, *, taken: bool) -> str:
    """Writes the crash log and keeps the prompt.

    Args:
        error: What nobody caught.
        prompt: The text that nothing else keeps; "" for none.
        taken: Whether that very text was kept by a crash before this one.

    Returns:
        A sentence or two for the user, without secrets, safe to print.
    """
    if isinstance(error, WorkerFailed):
        error = error.error  # the other one only says that there is one
    kept = logs.write_crash(error)
    where = f"details are in {kept}" if kept else "no log could be written"
    return f"edge-tui: something went wrong ({sanitise(logs.summary(error))}); {where}.{_of(prompt, taken)}"


def _of(prompt: str, taken: bool) -> str:
    """Where the prompt is; its text itself where no file could be written."""
    if not prompt:
        return ""
    file = unsaved.keep(prompt, aside=taken)
    if file is None:
        return f"\nThe prompt could not be kept in a file, so here it is:\n{sanitise(prompt)}"
    if taken:
        return f"\nThe prompt is in {file}; ctrl+o loads it."
    return "\nThe prompt is kept: the next start has it."
