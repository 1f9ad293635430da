"""Defines what screens and widgets may ask of the app, so that the app is not imported for its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from edge_tui.config.settings import Settings
    from edge_tui.history.store import Store
    from edge_tui.tui.clipboard import Clipboard
    from edge_tui.tui.downloads import Downloads
    from edge_tui.tui.key_queue import KeyQueue
    from edge_tui.tui.keymap import Keymap
    from edge_tui.tui.preferences import Preferences


class Services(Protocol):
    """Lists the services that screens ask of the app."""

    ascii: bool
    downloads: Downloads
    keymap: Keymap
    key_queue: KeyQueue
    keys_typed: int

    @property
    def gathering(self) -> bool:
        """True while changes are gathered, to be painted together."""

    def press(self, key: str, character: str | None) -> None:
        """Presses a key for the user."""

    def clipboard_support(self) -> Clipboard:
        """Judges the way to the user's clipboard."""

    def copy_to_clipboard(self, text: str) -> None:
        """Sends a text to the clipboard of the user's own machine."""

    def history(self) -> Store | None:
        """Returns the stored runs; None where runs are not recorded."""

    def preferences(self) -> Preferences:
        """Returns the settings as their screen lists and changes them."""

    def take_settings(self, settings: Settings, key: str) -> None:
        """Replaces the settings, of which the one named `key` has changed."""

    def show_models(self) -> None:
        """Opens the list of models."""

    def show_themes(self) -> None:
        """Opens the list of themes."""

    def action_show_help(self) -> None:
        """Opens the help."""


def services(node: MessagePump) -> Services:
    """Returns the app of a screen or widget as its services."""
    return cast("Services", node.app)
