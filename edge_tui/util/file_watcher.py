"""Watches the files of a few folders by comparing their dates in a thread of its own.

Comparing costs a few microseconds a file, sees what another machine writes to a shared folder (where the
kernel's notifications stay silent), and needs no folder to exist yet.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_tui.util.user_file import list_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Dates = dict["Path", tuple[int, int]]
"""Date in nanoseconds and size of each file."""


class FileWatcher:
    """Calls back, from its own thread, once files have changed and stopped changing.

    An editor that writes in two steps is reported once: a change counts when two scans in a row agree.

    Args:
        folders: Folders of the files; folders below them are not watched.
        pattern: Names of the files, as in `Path.glob`.
        on_change: Called with the files that are new, different or gone.
        seconds: Between two scans.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        pattern: str,
        on_change: Callable[[set[Path]], object],
        seconds: float = 0.25,
    ) -> None:
        self._folders = tuple(folders)
        self._pattern = pattern
        self._on_change = on_change
        self._seconds = seconds
        self._stop = threading.Event()
        self._dates = self._scan()
        self._thread = threading.Thread(target=self._run, name=f"watch {pattern}", daemon=True)

    def start(self) -> None:
        """Starts the thread; changes since this object was made count."""
        self._thread.start()

    def stop(self) -> None:
        """Signals the thread to end; a call that is under way ends by itself."""
        self._stop.set()

    def _run(self) -> None:
        before = self._dates
        while not self._stop.wait(self._seconds):
            now = self._scan()
            if now == before and now != self._dates:
                files = {file for file, _ in now.items() ^ self._dates.items()}
                self._dates = now
                self._on_change(files)
            before = now

    def _scan(self) -> Dates:
        dates: Dates = {}
        for folder in self._folders:
            for file in list_files(folder, self._pattern)[0]:
                # A link to nothing, or a file that vanished since the listing, does not count.
                with suppress(OSError):
                    status = file.stat()
                    dates[file] = (status.st_mtime_ns, status.st_size)
        return dates
