"""Chooses a file: the path is typed, the list shows the folder."""

from __future__ import annotations

import os
from pathlib import Path

from textual.content import Content
from textual.widgets import Input, Static

from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.util import user_file
from edge_tui.util.formatting import size
from edge_tui.util.sanitise import one_line
from edge_tui.util.user_file import expand

_SHOWN = 500


class FilesScreen(FilterListScreen[Path]):
    """Returns the path of a file; choosing a folder goes into it."""

    heading = "load into the prompt"
    hint = "type a path · ↑↓ move · enter take · esc leave"

    def on_mount(self) -> None:
        self.query_one(Input).placeholder = "path"
        super().on_mount()

    def items(self) -> list[Item]:
        folder, start = self._typed()
        try:
            entries = sorted(folder.iterdir(), key=lambda path: (not path.is_dir(), path.name.lower()))
        except OSError as error:
            self.query_one(".hint", Static).update(Content(f"{user_file.error_reason(error)}"))
            return []
        hidden = start.startswith(".")
        matching = [
            path
            for path in entries
            if start.lower() in path.name.lower() and (hidden or not path.name.startswith("."))
        ]
        return [self._item(path) for path in matching[:_SHOWN]]

    @staticmethod
    def _item(path: Path) -> Item:
        name = one_line(path.name)
        try:
            about = "" if path.is_dir() else f"  {size(path.stat().st_size)}"
            shown = f"{name}/" if path.is_dir() else name
        except OSError:
            about, shown = "  unreadable", name
        return Item(str(path), "", Content.assemble(shown, (about, "$text-muted")))

    def _typed(self) -> tuple[Path, str]:
        """Reads the folder and the beginning of a name out of the typed path."""
        typed = self.query_one(Input).value
        folder, slash, start = typed.rpartition("/")
        base = expand(f"{folder}{slash}" or ".")
        return base, start

    def _filter(self, query: str) -> None:
        """Lists the folder of the typed path instead of filtering."""
        hint = self.query_one(".hint", Static)
        folder, _ = self._typed()
        # Not `absolute`, which fails where the working folder has been removed.
        shown = folder if folder.is_absolute() else Path(os.environ.get("PWD", "")) / folder
        hint.update(Content(one_line(str(shown))))
        self._items = self.items()
        super()._filter("")

    def choose(self, id: str) -> None:
        path = Path(id)
        if not os.path.isdir(path):  # noqa: PTH112 - it fails nowhere
            self.dismiss(path)
            return
        typed = self.query_one(Input).value
        folder, slash, _ = typed.rpartition("/")
        field = self.query_one(Input)
        field.value = f"{folder}{slash}{path.name}/"
        field.cursor_position = len(field.value)
