"""Recalls, edits and loads prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.history.schema import HistoryError
from edge_tui.tui import editor
from edge_tui.tui.prompt_history import PromptHistory

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from edge_tui.history.store import Store
    from edge_tui.tui.workbench.ports import Messages, PromptField

_RECALLED = 500
"""Prompts of earlier sessions that up and down go through."""


class PromptController:
    """Puts other texts into the prompt.

    Args:
        prompt: The field.
        messages: Takes sentences.
        history: Opens the stored runs; None where none are recorded.
    """

    def __init__(self, prompt: PromptField, messages: Messages, history: Callable[[], Store | None]) -> None:
        self._prompt = prompt
        self._say = messages.say
        self._history = history
        self._past = PromptHistory(lambda: self.search("", _RECALLED))

    def search(self, query: str, most: int) -> list[str]:
        """Finds prompts of earlier runs, newest first."""
        store = self._history()
        try:
            return store.prompts(query, most) if store is not None else []
        except HistoryError as error:
            self._say(str(error), "error")
            return []

    def remember(self, prompt: str) -> None:
        """Adds a prompt that runs to those that up and down go through."""
        if prompt:
            self._past.add(prompt)

    def recall(self, step: int) -> None:
        """Puts the prompt before (−1) or after (1) into the field."""
        text = self._past.older(self._prompt.text) if step < 0 else self._past.newer()
        if text is not None:
            self._prompt.put(text, at_start=step < 0)

    def put(self, text: str | None) -> None:
        """Replaces the prompt and goes there; None leaves it."""
        if text is not None:
            self._prompt.put(text)
            self._prompt.focus()

    def edit(self, suspend: Callable[[], AbstractContextManager[None]]) -> None:
        """Opens the prompt in the user's editor.

        Args:
            suspend: Lends the terminal while it is open.
        """
        from textual.app import SuspendNotSupported

        text = self._prompt.text
        try:
            editor.command()
            with suspend():
                text = editor.edit(text)
        except editor.EditorError as error:
            self._say(str(error), "error")
        except SuspendNotSupported:
            self._say("This terminal cannot be lent to an editor; ctrl+o loads a file instead.", "error")
        if text != self._prompt.text:
            self.put(text)

    def load(self, path: Path | None) -> None:
        """Puts a file into the prompt; None leaves it."""
        if path is None:
            return
        try:
            self.put(editor.read_text(path))
        except editor.EditorError as error:
            self._say(str(error), "error")
        else:
            self._say(f"{path.name} is in the prompt; ctrl+z takes it out again.", "good")
