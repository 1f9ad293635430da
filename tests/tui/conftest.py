from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.engine.port import ModelSpec
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.session import Session
from edge_tui.tui.widgets.message_line import Kind, MessageLine
from tests.tui import parsed_css
from tests.tui.engines import FixedTelemetry, PictureEngine, ticking
from tests.tui.rendered import SAID, handled, idle


@pytest.fixture(autouse=True)
def _colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(autouse=True)
def _idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a pilot wait for an event loop with nothing to do.

    Textual waits until the process needs less than a twentieth of a core: for a second beside a decode, and
    for nothing where other processes keep it from running.
    """
    monkeypatch.setattr("textual.pilot.Pilot._wait_for_screen", handled)
    monkeypatch.setattr("textual.pilot.wait_for_idle", idle)
    monkeypatch.setattr("textual.app.wait_for_idle", idle)


@pytest.fixture(autouse=True)
def _parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textual.css.stylesheet.parse", parsed_css.parse)


@pytest.fixture(autouse=True)
def _said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records what the line above the keys says: the next message may come before a test looks."""
    say = MessageLine.say

    def recorded(line: MessageLine, message: str, kind: Kind = "info") -> None:
        say(line, message, kind)
        SAID.append(line.message)

    SAID.clear()
    monkeypatch.setattr(MessageLine, "say", recorded)


@pytest.fixture
def greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments are written in local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def theme(look: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The theme of a look; without colour it is the environment that says so."""
    if look == "no colour":
        monkeypatch.setenv("NO_COLOR", "1")
    return "light" if look == "light" else "dark"


@pytest.fixture
def picture() -> Callable[..., EdgeApp]:
    """An app whose every pixel is fixed."""

    def make(
        engine: PictureEngine | None = None,
        *,
        gpu: bool = True,
        theme: str = "dark",
        theme_folders: Sequence[Path] = (),
        **ui: Any,
    ) -> EdgeApp:
        settings = Settings()
        settings = replace(settings, ui=replace(settings.ui, **{"theme": theme, "ascii": False, **ui}))
        shown = engine or PictureEngine("cuda:0" if gpu else "cpu")
        return EdgeApp(
            lambda: shown,
            settings,
            telemetry=FixedTelemetry(gpu),  # type: ignore[arg-type]
            theme_folders=[resources.themes(), *theme_folders],
            session=Session(ticking()),
        )

    return make


@pytest.fixture
def demo() -> Iterator[Callable[..., EdgeApp]]:
    """An app on the real engine and the embedded pair of models."""
    made: list[EdgeApp] = []

    def make(**changes: Any) -> EdgeApp:
        from edge_tui.engine.local import LocalEngine

        settings = replace(Settings(), **changes)
        # Here, where a prompt that is known gives the numbers of one that is read.
        small = ModelSpec("demo/amateur", device="cpu")
        pair = {"model": ModelSpec("demo/expert", device="cpu"), "amateur": small, "draft": small}
        app = EdgeApp(lambda: LocalEngine(pair), settings, theme_folders=[resources.themes()])
        made.append(app)
        return app

    yield make
    for app in made:
        if app.session.engine is not None:
            app.session.engine.close(2.0)
