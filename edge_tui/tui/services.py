"""Defines what screens and widgets may ask of the app, so that the app is not imported for its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from textual.message_pump import MessagePump

    from edge_tui.config.settings import Settings
    from edge_tui.history.store import Store
    from edge_tui.tui.clipboard import Clipboard
    from edge_tui.tui.downloads import Downloads
    from edge_tui.tui.preferences import Preferences


class Services(Protocol):
    """Lists the services that screens ask of the app."""

    ascii: bool
    downloads: Downloads

    @property
    def gathering(self) -> bool: ...

    def clipboard_support(self) -> Clipboard: ...

    def history(self) -> Store | None: ...

    def preferences(self) -> Preferences: ...

    def take_settings(self, settings: Settings, key: str) -> None: ...

    def show_models(self) -> None: ...

    def show_themes(self) -> None: ...

    def action_show_help(self) -> None: ...


def services(node: MessagePump) -> Services:
    """Returns the app of a screen or widget as its services."""
    return cast("Services", node.app)
