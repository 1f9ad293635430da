"""Edits the prompt; at its edges up and down recall earlier prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message
from textual.widgets import TextArea

from edge_tui.tui.ascii_filter import in_text
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.filter import LineFilter


class Prompt(TextArea):
    """Edits the text of the next run."""

    DEFAULT_CSS = """
    Prompt { border: round $border-blurred; padding: 0 1; background: $background; }
    Prompt:focus { border: round $border; }
    """

    @dataclass
    class Recall(Message):
        """Asks for the prompt before (−1) or after (1)."""

        step: int

    def __init__(self, text: str = "", **kwargs: Any) -> None:
        super().__init__(
            text,
            tab_behavior="focus",
            highlight_cursor_line=False,
            placeholder="Type a prompt, ctrl+j runs it",
            **kwargs,
        )
        # What moves on the screen is what a model writes.
        self.set_reactive(TextArea.cursor_blink, False)
        self.border_title = "prompt"

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Keeps the prompt out of the ASCII filter."""
        return in_text(super().get_line_filters())

    def on_paste(self, event: events.Paste) -> None:
        """Stops the event, which the text area has taken."""
        event.stop()

    def action_cursor_up(self, select: bool = False) -> None:
        """Moves up; on the first line asks for the prompt before."""
        if not select and self.navigator.is_first_wrapped_line(self.cursor_location):
            self.post_message(self.Recall(-1))
        else:
            super().action_cursor_up(select)

    def action_cursor_down(self, select: bool = False) -> None:
        """Moves down; on the last line asks for the prompt after."""
        if not select and self.navigator.is_last_wrapped_line(self.cursor_location):
            self.post_message(self.Recall(1))
        else:
            super().action_cursor_down(select)

    def put(self, text: str, *, at_start: bool = False) -> None:
        """Replaces the text; ctrl+z brings the old one back."""
        self.replace(sanitise(text, tab="\t"), self.document.start, self.document.end)
        self.move_cursor(self.document.start if at_start else self.document.end)

    def append(self, text: str) -> None:
        """Appends text that was typed or pasted elsewhere, and takes the focus."""
        self.focus()
        self.move_cursor(self.document.end)
        self.insert(text)
