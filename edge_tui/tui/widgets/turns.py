"""Lists the turns of a conversation in two lines each; the token pane shows the chosen one's answer."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.message import Message
from textual.reactive import reactive

from edge_tui.tui.actions import bindings
from edge_tui.tui.widgets.line_panel import LinePanel, fit_start
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from edge_tui.tui.conversation import Exchange
    from edge_tui.tui.widgets.line_panel import Line

_LEAD = 10
"""Cells before a message."""


class Turns(LinePanel, can_focus=True):
    """Draws two lines for each exchange, up to a limit; never grows while an answer is written."""

    BINDINGS = bindings("turns")

    chosen: reactive[int] = reactive(0, repaint=False)
    """Number of the exchange whose answer is shown."""

    @dataclass
    class Chosen(Message):
        """Reports that another exchange is chosen."""

        number: int

    @dataclass
    class Edit(Message):
        """Asks to change the prompt of an exchange."""

        number: int

    class Read(Message):
        """Asks for the tokens of the chosen answer."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._exchanges: Sequence[Exchange] = ()
        self._top = 0
        self.limit = 4

    def show(self, exchanges: Sequence[Exchange], chosen: int) -> None:
        """Shows other exchanges, or their new state."""
        self._exchanges = exchanges
        self.set_reactive(Turns.chosen, chosen)
        # One line more is the rule below.
        self.styles.height = min(2 * len(exchanges), self.limit) + 1
        self.update_lines()

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes a line for each prompt and one for its answer, the chosen exchange in sight."""
        lines: list[Line] = []
        for number, exchange in enumerate(self._exchanges):
            here = number == self.chosen
            style = "$foreground" if here else "$text-muted"
            prompt = fit_start(_first_words(exchange.prompt), max(width - _LEAD, 0))
            mark = ("▸" if here else " ", "$primary bold")
            control = exchange.run.started.control_tokens if exchange.run and exchange.run.started else ()
            said_by_user = _marked(prompt, control, style)
            lines.append((mark, (f"{number + 1:>2} you   ", "$text-muted"), *said_by_user))
            count = f" {exchange.tokens:,} tok" if exchange.tokens is not None else ""
            if exchange.run is not None and exchange.run.active:
                count, sentence = "", "writing …"
            else:
                sentence = _first_words(exchange.visible_answer) or "no answer"
            shown = fit_start(sentence, max(width - _LEAD - cell_len(count), 0))
            lines.append((("    model ", "$text-muted"), (shown, style), (count, "$text-muted")))
        at = 2 * self.chosen
        self._top = max(min(self._top, at), at + 2 - height, 0)
        self._top = max(min(self._top, len(lines) - height), 0)
        return lines[self._top : self._top + height]

    def watch_chosen(self, chosen: int) -> None:
        """Marks the chosen exchange, and reports it."""
        self.update_lines()
        self.post_message(self.Chosen(chosen))

    def validate_chosen(self, chosen: int) -> int:
        """Keeps the choice within the conversation."""
        return min(max(chosen, 0), max(len(self._exchanges) - 1, 0))

    def action_choose(self, step: int) -> None:
        """Moves the choice by exchanges."""
        self.chosen += step

    def action_read(self) -> None:
        """Asks for the tokens of the chosen answer."""
        self.post_message(self.Read())

    def action_edit_turn(self) -> None:
        """Asks to change the chosen prompt."""
        if self._exchanges:
            self.post_message(self.Edit(self.chosen))

    def on_click(self, event: events.Click) -> None:
        """Chooses the exchange that was clicked; a double click goes to its tokens."""
        offset = event.get_content_offset(self)
        if offset is not None and self._exchanges:
            self.chosen = (self._top + offset.y) // 2
            if event.chain == 2:
                self.action_read()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Goes one exchange up."""
        event.stop()
        self.chosen -= 1

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Goes one exchange down."""
        event.stop()
        self.chosen += 1


def _marked(text: str, names: Sequence[str], style: str) -> list[tuple[str, str]]:
    """Splits a text into styled pieces; the control tokens that the model obeyed stand out."""
    shown = sorted((_first_words(name) for name in names), key=len, reverse=True)
    words = re.compile(f"({'|'.join(map(re.escape, shown))})") if shown else None
    parts = words.split(text) if words else [text]
    return [(part, "$warning reverse" if n % 2 else style) for n, part in enumerate(parts) if part]


def _first_words(text: str) -> str:
    return one_line(" ".join(text[:400].split()))
