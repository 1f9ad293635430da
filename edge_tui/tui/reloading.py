"""Reloads the user's strategies and themes when their files change.

Reading happens in the watch's thread: a file that imports torch, or never comes back, holds up nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui import decoders
from edge_tui.tui import theme
from edge_tui.util.file_watcher import FileWatcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from edge_tui.tui.theme import Themes


def watch_strategies(changed: Callable[[set[Path]], object]) -> FileWatcher:
    """Reads the strategies again whenever files of their folders change, and calls back with the files."""

    def reload(files: set[Path]) -> None:
        decoders.reload()
        changed(files)

    return FileWatcher(decoders.current().folders, "[!_]*.py", reload)


def watch_themes(folders: Sequence[Path], last: Themes, changed: Callable[[Themes], object]) -> FileWatcher:
    """Reads the themes again whenever one of their files changes, and calls back with them."""

    def reload(_: set[Path]) -> None:
        nonlocal last
        last = theme.load(folders, last)
        changed(last)

    return FileWatcher(folders, "*.toml", reload)
