"""Presses the user's keys for actions, as the user would."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from textual.keys import _character_to_key

from edge_tui.tui.actions import key_text
from edge_tui.tui.keymap import catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.tui.services import Services


class Keyboard:
    """Finds and presses keys.

    Args:
        services: The app, once there is one.
    """

    def __init__(self, services: Callable[[], Services]) -> None:
        self._services = services

    @property
    def typed(self) -> int:
        """Number of keys that the user has pressed."""
        return self._services().keys_typed

    @property
    def busy(self) -> bool:
        """True while a key has not taken effect yet."""
        return self._services().key_queue.busy

    def text(self, action: str) -> str:
        """Writes the first key of an action, or a key itself, as the help does."""
        return key_text(self._key(action))

    def press(self, action: str) -> None:
        """Presses the first key of an action; a name without a scope is a key, or a letter to be typed."""
        key = self._key(action)
        self._services().press(_character_to_key(key) if len(key) == 1 else key, _character(key))

    def _key(self, action: str) -> str:
        keys = self._services().keymap.keys.get(action) or _built_in().get(action, action)
        return keys.split(",")[0] if len(keys) > 1 else keys


@cache
def _built_in() -> dict[str, str]:
    return {each.id: each.keys for each in catalog()}


def _character(key: str) -> str | None:
    """Returns the character that a terminal sends with a key, where it is printable."""
    if key == "space":
        return " "
    return key if len(key) == 1 else None
