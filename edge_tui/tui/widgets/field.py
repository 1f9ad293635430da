"""A line to type into."""

from __future__ import annotations

from textual.widgets import Input


class Field(Input):
    """Its cursor stands still: what moves on the screen is what a model writes, and a slow line has rest."""

    def __init__(self, placeholder: str = "", *, id: str | None = None) -> None:
        super().__init__(placeholder=placeholder, compact=True, id=id)
        self.set_reactive(Input.cursor_blink, False)
