"""A line to type into."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.widgets import Input

from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from textual import events


class Field(Input):
    """An input whose cursor does not blink and whose text holds no control characters.

    What moves on the screen is what a model writes, and a slow line has rest. A paste, a copy of our own and
    a file's name come from outside, and terminals would obey what they may hold.
    """

    def __init__(self, placeholder: str = "", **options: Any) -> None:
        super().__init__(placeholder=placeholder, compact=True, **options)
        self.set_reactive(Input.cursor_blink, False)

    def on_paste(self, event: events.Paste) -> None:
        """Says what a line leaves out of several."""
        if (lines := len(event.text.splitlines())) > 1:
            sentence = f"This field takes one line: the first of {lines:,} pasted ones is in it."
            self.notify(sentence, severity="warning", markup=False)

    def validate_value(self, value: str) -> str:
        """Makes a value that is set as a whole safe to show."""
        return _safe(value)

    def replace(self, text: str, start: int, end: int) -> None:
        """Replaces part of the value, the cursor behind what came in."""
        super().replace(_safe(text), start, end)


def _safe(text: str) -> str:
    return sanitise(text, keep_newlines=False, tab=" ")
