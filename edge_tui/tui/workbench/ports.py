"""Defines what several controllers ask of the view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from edge_tui.tui.widgets.message_line import Kind


class Messages(Protocol):
    """Takes sentences for the message line."""

    def say(self, message: str, kind: Kind = "info") -> None:
        """Puts a sentence on the message line."""


class PromptField(Protocol):
    """Holds the text of the next run."""

    @property
    def text(self) -> str:
        """The text."""

    def put(self, text: str, *, at_start: bool = False) -> None:
        """Replaces the text; the cursor stands at its start or its end."""

    def focus(self) -> object:
        """Takes the focus."""
