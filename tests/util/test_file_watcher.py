from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from edge_tui.util import file_watcher, user_file
from edge_tui.util.file_watcher import FileWatcher

if TYPE_CHECKING:
    from pathlib import Path


class Told:
    """What a watch said, in order."""

    def __init__(self) -> None:
        self.said: list[set[str]] = []
        self._news = threading.Event()

    def __call__(self, files: set[Path]) -> None:
        self.said.append({file.name for file in files})
        self._news.set()

    def wait(self) -> set[str]:
        assert self._news.wait(20), "nothing was noticed"
        self._news.clear()
        return self.said[-1]


def test_new_changed_and_gone_files_are_told_once_each(tmp_path: Path) -> None:
    told = Told()
    later = tmp_path / "later"
    watch = FileWatcher([tmp_path, later], "*.py", told, seconds=0.02)
    watch.start()
    try:
        (tmp_path / "a.py").write_text("1")
        (tmp_path / "a.txt").write_text("1")
        assert told.wait() == {"a.py"}
        (tmp_path / "a.py").write_text("12")
        assert told.wait() == {"a.py"}
        (tmp_path / "a.py").unlink()
        assert told.wait() == {"a.py"}
        later.mkdir()
        (later / "b.py").write_text("1")
        assert told.wait() == {"b.py"}
        assert len(told.said) == 4
    finally:
        watch.stop()


def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows before each of the first scans."""
    told = Told()
    sizes = iter(range(8))

    def list_files(folder: Path, pattern: str) -> tuple[list[Path], str]:
        if (size := next(sizes, None)) is not None:
            (tmp_path / "a.py").write_text("x" * size)
        return user_file.list_files(folder, pattern)

    monkeypatch.setattr(file_watcher, "list_files", list_files)
    watch = FileWatcher([tmp_path], "*.py", told, seconds=0.01)
    watch.start()
    try:
        assert told.wait() == {"a.py"}
        assert next(sizes, None) is None
        assert len(told.said) == 1
    finally:
        watch.stop()
