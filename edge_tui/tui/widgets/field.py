"""A line to type into."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Input

if TYPE_CHECKING:
    from textual import events


class Field(Input):
    """Its cursor stands still: what moves on the screen is what a model writes, and a slow line has rest."""

    def __init__(self, placeholder: str = "", *, id: str | None = None) -> None:
        super().__init__(placeholder=placeholder, compact=True, id=id)
        self.set_reactive(Input.cursor_blink, False)

    def on_paste(self, event: events.Paste) -> None:
        """Says what a line leaves out of several."""
        if (lines := len(event.text.splitlines())) > 1:
            sentence = f"This field takes one line: the first of {lines:,} pasted ones is in it."
            self.notify(sentence, severity="warning", markup=False)
