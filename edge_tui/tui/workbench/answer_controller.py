"""Copies the answer on the screen, or saves it to a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_tui.tui import clipboard
from edge_tui.tui.workbench.ports import Messages
from edge_tui.util.user_file import error_reason

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.tui.services import Services


class AnswerView(Messages, Protocol):
    """Shows the answer."""

    def answer(self) -> str:
        """Reads the answer on the screen; "" after a message where there is none."""


class AnswerController:
    """Takes the answer elsewhere.

    Args:
        view: Shows the answer.
        services: Returns the app, which has the way to the clipboard.
    """

    def __init__(self, view: AnswerView, services: Callable[[], Services]) -> None:
        self._view = view
        self._services = services

    def copy(self) -> None:
        """Copies the answer through the terminal, and tells whether it will arrive."""
        if text := self._view.answer():
            support = self._services().clipboard_support()
            if support.works != "no":
                self._services().copy_to_clipboard(text)
            self._view.say(*clipboard.report(text, support))

    def save(self) -> None:
        """Writes the answer to a file in the folder that the app was started in."""
        if text := self._view.answer():
            try:
                self._view.say(f"Written to {clipboard.save(text)}.", "good")
            except OSError as error:
                self._view.say(f"The answer could not be written: {error_reason(error)}.", "error")
