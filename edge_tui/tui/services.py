"""Defines what screens may ask of the app and of the workbench, so that neither is imported for its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from pathlib import Path

    from textual.message_pump import MessagePump

    from edge_tui.config.settings import Settings
    from edge_tui.engine.events import Died
    from edge_tui.engine.port import ModelSpec
    from edge_tui.engine.remote.telemetry import RemoteTelemetry
    from edge_tui.history.store import Store
    from edge_tui.machine.telemetry import Telemetry
    from edge_tui.tui.clipboard import Clipboard
    from edge_tui.tui.downloads import Downloads
    from edge_tui.tui.keymap import Keymap
    from edge_tui.tui.preferences import Preferences
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session
    from edge_tui.tui.theme_switch import ThemeSwitch
    from edge_tui.tui.widgets.parameters import Parameters
    from edge_tui.tui.widgets.prompt import Prompt
    from edge_tui.tui.widgets.token_pane import TokenPane


class WorkbenchParts(Protocol):
    """Lists the parts of the workbench that screens and helpers of the app use."""

    session: Session
    run_params: RunParams
    parameters: Parameters
    pane: TokenPane
    prompt: Prompt

    @property
    def too_small(self) -> bool: ...

    def take_strategies(self, files: set[Path]) -> None: ...

    def reopen(self, run: int, again: bool = False) -> object: ...

    def say(self, message: str, kind: str = "info") -> None: ...

    def texts_of(self, ids: list[int]) -> list[str]: ...


class Services(Protocol):
    """Lists the services that screens ask of the app."""

    ascii: bool
    settings: Settings
    telemetry: Telemetry | RemoteTelemetry | None
    downloads: Downloads
    keymap: Keymap
    theme_switch: ThemeSwitch

    @property
    def workbench(self) -> WorkbenchParts: ...

    @property
    def gathering(self) -> bool: ...

    @property
    def model_name(self) -> str: ...

    def history(self) -> Store | None: ...

    def preferences(self) -> Preferences: ...

    def take_settings(self, settings: Settings, key: str) -> None: ...

    def start_engine(self) -> None: ...

    def assign(self, role: str, spec: ModelSpec) -> None: ...

    def offer_restart(self, event: Died) -> None: ...

    def clipboard_support(self) -> Clipboard: ...

    def show_models(self) -> None: ...

    def show_settings(self) -> None: ...

    def show_themes(self) -> None: ...

    def action_show_help(self) -> None: ...


def services(node: MessagePump) -> Services:
    """Returns the app of a screen or widget as its services."""
    return cast("Services", node.app)
