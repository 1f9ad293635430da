"""Cleans pasted text, and puts into the prompt what no field takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.tui.input_parser import LONGEST_PASTE, PASTE_PAUSE
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from edge_tui.tui.services import WorkbenchParts

PAUSED = (
    f"The paste has paused for {PASTE_PAUSE:.0f} s without its end; what has come is there."
    " The next single key ends it."
)


def clean(text: str) -> str:
    """A pasted text with line ends as they are here, and without what a terminal would obey."""
    # Windows' line ends; a lone carriage return is how terminals send a pasted new line.
    return sanitise(text.replace("\r\n", "\n").replace("\r", "\n"), tab="\t")


def refusal(length: int) -> str:
    """Why a paste was not taken."""
    return (
        f"The paste has {length:,} characters; a prompt takes at most {LONGEST_PASTE:,},"
        " so nothing more of it was taken."
    )


def into_prompt(workbench: WorkbenchParts, is_shown: bool, text: str) -> str:
    """Puts a paste that no field took at the prompt's end; returns a sentence where that is not seen."""
    if not text:
        return ""
    workbench.prompt.type(text)
    if is_shown and not workbench.too_small:
        return ""
    return f"The paste is in the prompt: {len(text):,} characters."
