"""Writes the sentences about an exception: its name, its log file, and the file of the prompt."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message
from textual.worker import WorkerFailed

from edge_tui.tui import prompt_rescue
from edge_tui.util import logs
from edge_tui.util.sanitise import sanitise


@dataclass
class BackgroundFailed(Message):
    """Reports that an exception has ended something in the background; the app goes on."""

    sentence: str


def thread_sentence(thread: str, error: BaseException) -> str:
    """Logs the exception that ended a thread; returns a sentence about it, safe to show."""
    summary, where = _log(error)
    return sanitise(f"{thread or 'A thread'} has stopped ({summary}); {where}.")


def report(error: BaseException, prompt: str, *, restored: bool) -> str:
    """Writes the crash log and saves the prompt.

    Args:
        error: The exception that nothing caught.
        prompt: The text that no recorder has stored; "" for none.
        restored: True where a crash before this one had saved that very text.

    Returns:
        A sentence or two for the user, without secrets, safe to print.
    """
    if isinstance(error, WorkerFailed):
        error = error.error  # the other one only says that there is one
    summary, where = _log(error)
    sentence = sanitise(f"edge-tui: something went wrong ({summary}); {where}.")
    return sentence + _save(prompt, restored)


def _log(error: BaseException) -> tuple[str, str]:
    """Writes the log of an exception; returns its summary, and words about the log's file."""
    log = logs.write_crash(error)
    return logs.summary(error), f"details are in {log}" if log else "no log could be written"


def _save(prompt: str, restored: bool) -> str:
    """Saves the prompt and names its file, or repeats its text where no file could be written."""
    if not prompt:
        return ""
    file = prompt_rescue.save(prompt, aside=restored)
    if file is None:
        return f"\nThe prompt could not be kept in a file, so here it is:\n{sanitise(prompt)}"
    if restored:
        return f"\nThe prompt is in {file}; ctrl+o loads it."
    return "\nThe prompt is kept: the next start has it."
