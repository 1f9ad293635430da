"""Lists options and keeps the highlighted one in sight."""

from __future__ import annotations

from textual.widgets import OptionList


class ChoiceList(OptionList):
    """Scrolls to the highlighted option whenever the list gets another size.

    Textual scrolls when the highlight moves alone. What is below a list takes lines from it later, and a
    terminal may be resized at any time.
    """

    def on_resize(self) -> None:
        """Scrolls once the new size is laid out."""
        self.call_after_refresh(self.scroll_to_highlight)
