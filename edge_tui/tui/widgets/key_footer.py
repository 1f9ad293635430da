"""Shows the keys of the focused widget in the last line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.widgets import Footer, Label

if TYPE_CHECKING:
    from collections.abc import Iterable

    from textual.widget import Widget


class KeyFooter(Footer):
    """Shows as many keys as the line holds, and an ellipsis for the others."""

    def __init__(self) -> None:
        super().__init__(show_command_palette=False, compact=True)

    def compose(self) -> Iterable[Widget]:
        """Yields the keys that fit."""
        keys = list(super().compose())
        cells = [_cells(key) for key in keys]
        room = self.content_size.width
        if sum(cells) - 1 <= room or not room:
            yield from keys
            return
        for key, width in zip(keys, cells, strict=True):
            room -= width
            if room < 1:
                break
            yield key
        yield Label("…")

    def on_resize(self) -> None:
        """Chooses the keys for the new width."""
        self.refresh(recompose=True)


def _cells(key: Widget) -> int:
    """Measures a key with its description and the space behind it."""
    return cell_len(f"{getattr(key, 'key_display', '')} {getattr(key, 'description', '')} ")
