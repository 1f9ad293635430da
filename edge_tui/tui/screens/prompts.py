"""Searches the prompts that were run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.widgets import OptionList

_SHOWN = 200
_PREVIEW = 6
"""Lines of the prompt under the cursor."""


class PromptsScreen(FilterListScreen[str]):
    """Returns a prompt.

    Args:
        find: The prompts that hold a query, newest first, and how many at most.
    """

    heading = "prompts"
    hint = "type to search · ↑↓ move · enter take · esc leave"
    placeholder = "search"

    def __init__(self, find: Callable[[str, int], list[str]]) -> None:
        super().__init__()
        self._find = find
        self._prompts: list[str] = []

    def items(self) -> list[Item]:
        """Lists the first line of each prompt that was found."""
        return [
            Item(str(number), "", Content(one_line(" ".join(prompt[:300].split()))))
            for number, prompt in enumerate(self._prompts)
        ]

    def _filter(self, query: str) -> None:
        """Searches the history instead of filtering."""
        self._prompts = self._find(query, _SHOWN)
        self._items = self.items()
        super()._filter("")
        if not self._prompts:
            sentence = "No prompt holds that." if query.strip() else "No prompt has been run yet."
            self.about.update(sentence)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Previews the prompt under the cursor."""
        lines = sanitise(self._prompts[int(event.option_id or 0)][:2000]).splitlines()
        self.about.update(Content("\n".join(lines[:_PREVIEW])))

    def choose(self, id: str) -> None:
        """Closes with a prompt."""
        self.dismiss(self._prompts[int(id)])
