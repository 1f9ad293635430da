"""Makes control characters in pasted text visible; words the messages about pastes too long or unfinished."""

from __future__ import annotations

from edge_tui.tui.input_parser import LONGEST_PASTE, PASTE_PAUSE
from edge_tui.util.sanitise import sanitise

PAUSED = (
    f"The paste has paused for {PASTE_PAUSE:.0f} s without its end; what has come is there."
    " The next single key ends it."
)


def clean(text: str) -> str:
    """Replaces line ends in a pasted text by ours, and control characters by visible marks."""
    # Windows' line ends; a lone carriage return is how terminals send a pasted new line.
    return sanitise(text.replace("\r\n", "\n").replace("\r", "\n"), tab="\t")


def refusal(length: int) -> str:
    """Writes the sentence about a paste that was too long."""
    return (
        f"The paste has {length:,} characters; a prompt takes at most {LONGEST_PASTE:,},"
        " so nothing more of it was taken."
    )
