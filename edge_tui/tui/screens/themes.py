"""Lists the themes and previews the one under the cursor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.tui.theme import AUTO, LADDER
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from textual.widgets import OptionList

    from edge_tui.tui.theme import Themes


class ThemesScreen(FilterListScreen[str]):
    """Returns the name of a theme; leaving restores the theme before.

    Args:
        themes: The themes that were found.
        chosen: The one in use, "auto" where the terminal decides.
        show: Puts a theme on the screen.
    """

    heading = "theme"
    hint = "enter keep · esc leave"

    def __init__(self, themes: Themes, chosen: str, show: Callable[[str], None]) -> None:
        super().__init__(chosen)
        self._themes = themes
        self._show = show

    def items(self) -> list[Item]:
        """Lists the themes with their ladders of colours."""
        found = [Item(AUTO, "auto terminal", Content.assemble("As the terminal is"))]
        for name, title in self._themes.titles.items():
            ladder = self._themes.themes[name].variables
            dots = [("█", ladder[f"token-{i}"]) for i in range(LADDER)]
            shown = one_line(title)
            found.append(Item(name, f"{name} {shown}", Content.assemble(f"{shown:<26} ", *dots)))
        return found

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Shows the theme under the cursor on the whole app."""
        if event.option_id:
            self._show(event.option_id)

    def action_leave(self) -> None:
        """Restores the theme before, and closes."""
        self._show(self._chosen)
        super().action_leave()
