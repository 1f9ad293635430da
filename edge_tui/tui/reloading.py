"""Reloads the user's strategies and themes when their files change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from edge_tui import decoders
from edge_tui.tui import theme
from edge_tui.util.file_watcher import FileWatcher

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from textual.app import App

    from edge_tui.tui.theme import Themes


@dataclass
class StrategiesChanged(Message):
    """Posted when the registry has been read again, because of these files."""

    files: set[Path]


@dataclass
class ThemesChanged(Message):
    """Posted when the themes have been read again."""

    themes: Themes


def watch_strategies(app: App[int]) -> FileWatcher:
    """Reads the strategies again whenever a file of their folders changes, and tells the app.

    Reading happens in the watch's thread: a file that imports torch, or never comes back, holds up nobody.
    """

    def changed(files: set[Path]) -> None:
        decoders.reload()
        app.post_message(StrategiesChanged(files))

    return FileWatcher(decoders.current().folders, "[!_]*.py", changed)


def watch_themes(app: App[int], folders: Sequence[Path], last: Themes) -> FileWatcher:
    """Reads the themes again whenever one of their files changes, and tells the app."""

    def changed(_: set[Path]) -> None:
        nonlocal last
        last = theme.load(folders, last)
        app.post_message(ThemesChanged(last))

    return FileWatcher(folders, "*.toml", changed)
