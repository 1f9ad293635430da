"""Runs downloads behind any screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.hub.remote import Download, Progress


class Downloads:
    """Holds the downloads of a session, by repository.

    Args:
        ended: Takes the name and the end of a download, from a thread of its own.
    """

    def __init__(self, ended: Callable[[str, Progress], object]) -> None:
        self._ended = ended
        self._pulls: dict[str, Download] = {}

    def start(self, name: str) -> None:
        """Begins a download, unless it goes on already."""
        from edge_tui.hub.remote import Download

        if (known := self.progress(name)) is not None and known.active:
            return
        pull = self._pulls[name] = Download(name)

        def changed() -> None:
            if not pull.progress.active:
                self._ended(name, pull.progress)

        pull.on_change = changed
        pull.start()

    def progress(self, name: str) -> Progress | None:
        """Returns the progress of a download; None if it was never begun."""
        pull = self._pulls.get(name)
        return pull.progress if pull is not None else None

    @property
    def active(self) -> list[str]:
        """The repositories that are being downloaded."""
        return [name for name, pull in self._pulls.items() if pull.progress.active]

    def cancel(self, name: str) -> bool:
        """Cancels a download; False if it was not going on. Complete files stay."""
        if name not in self.active:
            return False
        self._pulls[name].cancel()
        return True

    def close(self) -> None:
        """Cancels all downloads."""
        for name in self.active:
            self._pulls[name].cancel()
