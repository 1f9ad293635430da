"""Edits one line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.widgets import Input

from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from textual import events


class Field(Input):
    """Edits one line, without a blinking cursor and without control characters.

    What moves on the screen is what a model writes, and a slow line has rest. A paste, a copy of our own and
    a file's name come from outside, and terminals would obey what they may hold.
    """

    def __init__(self, placeholder: str = "", **options: Any) -> None:
        super().__init__(placeholder=placeholder, compact=True, **options)
        self._placeholder = placeholder
        self.set_reactive(Input.cursor_blink, False)

    def on_resize(self, event: events.Resize) -> None:
        """Cuts the placeholder to the new width."""
        self.placeholder = clip(self._placeholder, self.content_size.width - 1)

    def on_paste(self, event: events.Paste) -> None:
        """Reports the lines that a field leaves out of a paste."""
        if (lines := len(event.text.splitlines())) > 1:
            sentence = f"This field takes one line: the first of {lines:,} pasted ones is in it."
            self.notify(sentence, severity="warning", markup=False)

    def validate_value(self, value: str) -> str:
        """Makes a whole value safe to show."""
        return one_line(value, tab=" ")

    def replace(self, text: str, start: int, end: int) -> None:
        """Replaces part of the value, and puts the cursor behind the new text."""
        super().replace(one_line(text, tab=" "), start, end)
