"""Notices when files of a few folders change, by looking at their dates from a thread of its own.

Looking costs a few microseconds a file, sees what another machine writes to a shared folder (where the
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
    """Calls back, from its own thread, once changed files have come to rest.

    An editor that writes in two steps is reported once: a change counts when two looks in a row agree.

    Args:
        folders: Whose files are looked at; folders below them are not.
        pattern: Which files, as in `Path.glob`.
        changed: Told the files that are new, different or gone.
        seconds: Between two looks.
    """

    def __init__(
        self,
        folders: Iterable[Path],
        pattern: str,
        changed: Callable[[set[Path]], object],
        seconds: float = 0.25,
    ) -> None:
        self._folders = tuple(folders)
        self._pattern = pattern
        self._changed = changed
        self._seconds = seconds
        self._stop = threading.Event()
        self._known = self._look()
        self._thread = threading.Thread(target=self._run, name=f"watch {pattern}", daemon=True)

    def start(self) -> None:
        """Begins; what changed since the watch was made counts."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; a call back that is under way is left to end by itself."""
        self._stop.set()

    def _run(self) -> None:
        before = self._known
        while not self._stop.wait(self._seconds):
            now = self._look()
            if now == before and now != self._known:
                files = {file for file, _ in now.items() ^ self._known.items()}
                self._known = now
                self._changed(files)
            before = now

    def _look(self) -> Dates:
        dates: Dates = {}
        for folder in self._folders:
            for file in list_files(folder, self._pattern)[0]:
                # A link to nothing, or a file that vanished under our eyes, is not there.
                with suppress(OSError):
                    seen = file.stat()
                    dates[file] = (seen.st_mtime_ns, seen.st_size)
        return dates
