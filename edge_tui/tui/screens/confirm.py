"""Asks a question with two answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from edge_tui.tui.actions import bindings
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from textual.app import ComposeResult


class ConfirmScreen(ModalScreen[bool]):
    """Returns True for enter, False for esc."""

    BINDINGS = bindings("confirm")

    def __init__(self, heading: str, question: str, yes: str) -> None:
        super().__init__()
        self._heading = heading
        self._question = question
        self._yes = yes

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = self._heading
            dialog.border_subtitle = f"enter {self._yes} · esc leave it"
            yield Static(sanitise(self._question), markup=False)

    def action_answer(self, answer: bool) -> None:
        self.dismiss(answer)
