"""Downloads that go on behind whatever screen is open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.hub.remote import Download, Progress


@dataclass
class DownloadEnded(Message):
    """A download is over, one way or another."""

    name: str
    progress: Progress


class Downloads:
    """The downloads of a session, by repository.

    Args:
        post: Takes messages from any thread.
    """

    def __init__(self, post: Callable[[Message], object]) -> None:
        self._post = post
        self._pulls: dict[str, Download] = {}

    def start(self, name: str) -> None:
        """Begins a download, unless it goes on already."""
        from edge_tui.hub.remote import Download

        if (known := self.progress(name)) is not None and known.active:
            return
        pull = self._pulls[name] = Download(name)

        def changed() -> None:
            if not pull.progress.active:
                self._post(DownloadEnded(name, pull.progress))

        pull.changed = changed
        pull.start()

    def progress(self, name: str) -> Progress | None:
        """How far one has come; None if it was never begun."""
        pull = self._pulls.get(name)
        return pull.progress if pull is not None else None

    @property
    def active(self) -> list[str]:
        """What is being fetched."""
        return [name for name, pull in self._pulls.items() if pull.progress.active]

    def cancel(self, name: str) -> bool:
        """Gives one up; False if it was not going on. Files that have come whole stay."""
        if name not in self.active:
            return False
        self._pulls[name].cancel()
        return True

    def close(self) -> None:
        """Gives all of them up."""
        for name in self.active:
            self._pulls[name].cancel()
