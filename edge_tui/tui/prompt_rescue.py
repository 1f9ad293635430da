"""Saves the prompt to a file when the app crashes; the next start restores it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from edge_tui.util.atomic_write import create_file
from edge_tui.util.logs import state_folder

if TYPE_CHECKING:
    from pathlib import Path

_PREFIX, _ASIDE = "prompt-", "aside-"
"""Beginnings of file names: prompts for the next start, and prompts that were restored before a crash."""


def save(text: str, *, aside: bool = False) -> Path | None:
    """Writes a prompt to a file that only its owner can read.

    Args:
        text: The prompt, as it stands in the field.
        aside: Leave it to the user to load it again: a prompt that a start has already taken, and that
            has not been changed since, may be what the session died of.

    Returns:
        The file, or None where none could be written.
    """
    seconds, fraction = divmod(time.time_ns(), 10**9)
    stamp = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(seconds))}-{fraction:09}-{os.getpid()}"
    path = state_folder() / f"{_ASIDE if aside else _PREFIX}{stamp}.txt"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        create_file(path, text)
    except OSError:
        return None
    return path


def take() -> tuple[str, int]:
    """Takes the newest saved prompt, and removes its file.

    Returns:
        The prompt, "" where there is none, and how many wait for later starts.
    """
    try:
        found = sorted(state_folder().glob(f"{_PREFIX}*.txt"))
    except OSError:
        return "", 0
    while found:
        path = found.pop()
        mine = path.with_suffix(f".{os.getpid()}")
        try:
            path.rename(mine)  # two starts at once take two prompts
            text = mine.read_text(encoding="utf-8", errors="replace")
            mine.unlink()
        except OSError:
            continue
        return text, len(found)
    return "", 0
