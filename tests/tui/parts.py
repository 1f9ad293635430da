"""What stands around a controller in its test: a view that notes what it is told, a field, a session."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_tui import decoders
from edge_tui.config.settings import Settings
from edge_tui.tui.run_params import RunParams
from edge_tui.tui.session import Session
from tests.tui.engines import PictureEngine, ticking


class Field:
    """A prompt."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.focused = 0

    def put(self, text: str, *, at_start: bool = False) -> None:
        self.text = text

    def focus(self) -> None:
        self.focused += 1


class View:
    """Notes what a controller has it show."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.kind = ""
        self.calls: list[str] = []
        self.looked_at: Any = None
        self.transcript: Any = None
        self.refused: dict[str, str] = {}
        self.refusals: dict[str, str] = {}

    def say(self, message: str, kind: str = "info") -> None:
        self.said.append(message)
        self.kind = kind

    def look_at(self, run: Any) -> None:
        self.looked_at = run

    def clear(self) -> bool:
        self.calls.append("clear")
        return True

    def refuse(self, key: str, message: str) -> None:
        self.refused[key] = message

    def show_strategies(self, decoders: Any, refusals: Any) -> None:
        self.refusals = refusals

    def title_of(self, strategy: str) -> str:
        return strategy

    def __getattr__(self, name: str) -> Any:
        """Anything else is noted by name."""
        return lambda *args: self.calls.append(name)


class Panel:
    """Holds the error of a strategy."""

    problem: Any = None
    while_running = reverted = False

    def show(self, problem: Any, *, while_running: bool = False, reverted: bool = False) -> None:
        self.problem, self.while_running, self.reverted = problem, while_running, reverted


def settings(strategy: str = "top_p", **changes: Any) -> RunParams:
    """The values of the next request."""
    return RunParams(replace(Settings(), **changes), decoders.find(strategy))


def session(engine: PictureEngine | None = None) -> Session:
    """A session whose engine has loaded its model."""
    engine = engine or PictureEngine()
    made = Session(ticking())
    made.attach(engine)  # type: ignore[arg-type]
    engine.load("model")
    made.pump()
    return made
