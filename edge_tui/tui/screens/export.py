"""Chooses a kind of file for an export."""

from __future__ import annotations

from textual.content import Content

from edge_tui.history import formats
from edge_tui.tui.screens.filter_list import FilterListScreen, Item


class ExportScreen(FilterListScreen[str]):
    """Returns one of `formats.FORMATS`."""

    heading = "export"

    def items(self) -> list[Item]:
        """Lists the kinds of file."""
        items = []
        for kind, about in formats.FORMATS.items():
            name, _, what = about.partition(": ")
            shown = Content.assemble((f"{name:<10}", "bold"), (what, "$text-muted"))
            items.append(Item(kind, about, shown))
        return items
