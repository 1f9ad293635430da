"""Leads through five steps at the first start: a card waits until each is done."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from textual.content import Content
from textual.widgets import Static

from edge_tui.util.logs import state_folder
from edge_tui.util.user_file import exists

if TYPE_CHECKING:
    from pathlib import Path

TourAction = Literal["run", "token", "strategy", "parameter", "help"]


class Step(NamedTuple):
    """Describes one step: its title, its text, and the action that completes it."""

    title: str
    text: str
    action: TourAction


STEPS = (
    Step("Let it write", "Type def fibonacci(n): and press ^j.", "run"),
    Step(
        "See what it thought",
        "Each token has the colour of its probability. Press ← to walk back over them, and enter on one to "
        "see what else could have come there; enter there takes it.",
        "token",
    ),
    Step(
        "Try another way", "Press 2: the same prompt as a beam search. Every digit is a strategy.", "strategy"
    ),
    Step(
        "Change a parameter",
        "Press e, choose a parameter with ↑ and ↓, and change it with ← and →; space shows what it does.",
        "parameter",
    ),
    Step(
        "Go on alone", "Press ? for every key. m has other models, t other colours, , all settings.", "help"
    ),
)


class TourCard(Static):
    """Shows the current step over the tokens' lower corner; takes no keys."""

    DEFAULT_CSS = """
    TourCard { layer: above; dock: bottom; display: none; width: 44; height: auto; margin: 0 0 5 2;
        padding: 0 1; background: $surface; border: round $accent; border-title-color: $accent;
        border-title-style: bold; border-subtitle-color: $text-muted; }
    TourCard.-shown { display: block; }
    """

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._at: int | None = None

    @property
    def step(self) -> Step | None:
        """The step that waits to be done."""
        return STEPS[self._at] if self._at is not None and self._at < len(STEPS) else None

    def begin(self) -> None:
        """Shows the first step."""
        self._at = 0
        self._show()

    def leave(self) -> None:
        """Ends the tour for good."""
        self._at = None
        remember()
        self.remove_class("-shown")

    def toggle(self) -> None:
        """Begins or leaves."""
        if self._at is None:
            self.begin()
        else:
            self.leave()

    def done(self, action: TourAction) -> None:
        """Goes to the next step if the tour waited for this action."""
        if self.step is None or self.step.action != action:
            return
        assert self._at is not None
        self._at += 1
        if self.step is None:
            self.leave()
        else:
            self._show()

    def _show(self) -> None:
        assert self.step is not None
        assert self._at is not None
        self.border_title = f"{self._at + 1} of {len(STEPS)}: {self.step.title}"
        self.border_subtitle = "f2 leaves the tour"
        self.update(Content(self.step.text))
        self.add_class("-shown")


def has_toured() -> bool:
    """Tells whether the tour was completed, or left."""
    return exists(_mark())


def remember() -> None:
    """Writes down that the tour need not come again."""
    with suppress(OSError):
        _mark().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _mark().touch()


def _mark() -> Path:
    return state_folder() / "toured"
