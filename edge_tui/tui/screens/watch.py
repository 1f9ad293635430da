"""Asks for a text whose token is listed at every position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.widgets import Static

from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.widgets.field import Field
from edge_tui.util.sanitise import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget
    from textual.widgets import Input


class WatchScreen(Dialog[str]):
    """Returns the text, or None.

    Args:
        watched: Texts that are watched already.
    """

    BINDINGS = bindings("name")
    heading = "watch a token"
    hint = "enter watch · esc leave"

    def __init__(self, watched: Sequence[str]) -> None:
        super().__init__()
        sentence = "A space before a word counts: most tokens within a text begin with one."
        if watched:
            sentence += f"\nWatched: {' '.join(map(visible, watched))}"
        self.about = Static(sentence, markup=False, classes="hint")

    def content(self) -> Iterable[Widget]:
        """Lists the field, then the tokens that are watched."""
        return Field("a word, as it stands in the text"), self.about

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Closes with the text."""
        event.stop()
        self.dismiss(event.value)
