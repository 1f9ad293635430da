"""The prompt: several lines, pastes of any length, never lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.widgets import TextArea

from edge_tui.sanitise import sanitise

if TYPE_CHECKING:
    from textual import events


class Prompt(TextArea):
    """A text area whose content is what the next run reads."""

    DEFAULT_CSS = """
    Prompt { border: round $border-blurred; padding: 0 1; background: $background; }
    Prompt:focus { border: round $border; }
    """

    def __init__(self, text: str = "", **kwargs: Any) -> None:
        super().__init__(
            text,
            tab_behavior="focus",
            highlight_cursor_line=False,
            placeholder="Type a prompt, ctrl+j runs it",
            **kwargs,
        )
        self.border_title = "prompt"

    def on_paste(self, event: events.Paste) -> None:
        """A paste comes from outside: terminals would obey what it may hold. The text area then takes it."""
        event.stop()
        # Windows' line ends; a lone carriage return is how terminals send a pasted new line.
        text = event.text.replace("\r\n", "\n").replace("\r", "\n")
        event.text = sanitise(text, tab="\t")

    def type(self, character: str) -> None:
        """A character typed elsewhere that belongs here."""
        self.focus()
        self.move_cursor(self.document.end)
        self.insert(character)
