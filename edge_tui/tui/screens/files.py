"""Chooses a file: the path is typed, the list shows the folder."""

from __future__ import annotations

import os
from pathlib import Path

from textual.content import Content

from edge_tui.tui.screens.filter_list import FilterListScreen, Item
from edge_tui.util.formatting import size
from edge_tui.util.sanitise import one_line
from edge_tui.util.user_file import error_reason, expand

_SHOWN = 500


class FilesScreen(FilterListScreen[Path]):
    """Returns the path of a file; choosing a folder goes into it."""

    heading = "load into the prompt"
    hint = "type a path · ↑↓ move · enter take · esc leave"
    placeholder = "path"

    def items(self) -> list[Item]:
        """Lists the folder's entries that begin as typed, folders first."""
        folder, start = self._typed()
        try:
            entries = sorted(folder.iterdir(), key=lambda path: (not path.is_dir(), path.name.lower()))
        except OSError as error:
            self.about.update(Content(error_reason(error)))
            return []
        if not start.startswith("."):
            entries = [path for path in entries if not path.name.startswith(".")]
        matching = [path for path in entries if start.lower() in path.name.lower()]
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
        folder, slash, start = self.field.value.rpartition("/")
        return expand(f"{folder}{slash}" or "."), start

    def _filter(self, query: str) -> None:
        """Lists the folder of the typed path instead of filtering."""
        folder, _ = self._typed()
        # Not `absolute`, which fails where the working folder has been removed.
        shown = folder if folder.is_absolute() else Path(os.environ.get("PWD", "")) / folder
        self.about.update(Content(one_line(str(shown))))
        self._items = self.items()
        super()._filter("")

    def choose(self, id: str) -> None:
        """Returns a file; goes into a folder."""
        path = Path(id)
        if not os.path.isdir(path):  # noqa: PTH112 - it fails nowhere
            self.dismiss(path)
            return
        folder, slash, _ = self.field.value.rpartition("/")
        self.field.value = f"{folder}{slash}{path.name}/"
        self.field.cursor_position = len(self.field.value)


class ScoreFileScreen(FilesScreen):
    """Chooses a file to be scored."""

    heading = "score a file"
