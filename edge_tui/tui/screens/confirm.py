"""Asks a question with two answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Static

from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget


class ConfirmScreen(Dialog[bool]):
    """Returns True for enter, False for esc."""

    BINDINGS = bindings("confirm")

    def __init__(self, heading: str, question: str, yes: str) -> None:
        super().__init__(heading, f"enter {yes} · esc leave it")
        self._question = question

    def content(self) -> Iterable[Widget]:
        """Yields the question."""
        yield Static(sanitise(self._question), markup=False)

    def action_answer(self, answer: bool) -> None:
        """Closes with the answer."""
        self.dismiss(answer)
