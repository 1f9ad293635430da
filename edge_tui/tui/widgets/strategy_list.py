"""Shows the first nine strategies with their digits, and the chosen one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from edge_tui.util.formatting import clip
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from edge_tui.decoders.base import Decoder

DIGITS = 9


class StrategyList(Widget):
    """Lists strategies to look at and to click; the keyboard reaches it through the digits."""

    DEFAULT_CSS = """
    StrategyList { height: auto; border: round $border-blurred; padding: 0 1; }
    """

    chosen: reactive[str] = reactive("")
    columns: reactive[int] = reactive(1, layout=True)
    """Two where height is scarce."""

    refusals: reactive[dict[str, str]] = reactive({})
    """The engine's refusals of strategies, by name; those are greyed out."""

    @dataclass
    class Selected(Message):
        """Reports that a strategy was clicked."""

        name: str

    def __init__(self, decoders: Sequence[Decoder], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.decoders = list(decoders)
        self._chosen: Decoder | None = None
        self.border_title = "strategy"

    @property
    def lines(self) -> list[Decoder]:
        """The strategies in the list: the first nine, and the chosen one if it is none of them."""
        first, chosen = self.decoders[:DIGITS], self._chosen
        is_first = chosen is None or chosen.name in [each.name for each in first]
        return first if is_first or chosen is None else [*first, chosen]

    def choose(self, decoder: Decoder) -> None:
        """Marks a strategy, which may be a typed chain that no list has."""
        self._chosen = decoder
        self.chosen = decoder.name

    def watch_chosen(self) -> None:
        """Marks the chosen strategy, and names the key that lists them all where some are not listed."""
        self.refresh(layout=True)
        self.border_subtitle = "s: more" if len(self.decoders) > len(self.lines) else ""

    def _rows(self) -> int:
        return -(-len(self.lines) // self.columns)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """Returns the number of rows; the width does not change it."""
        return self._rows()

    def render(self) -> Content:
        """Writes the strategies in columns, top to bottom."""
        rows, lines = self._rows(), self.lines
        cell = max(self.content_size.width // self.columns, 1)
        parts: list[str | tuple[str, str]] = []
        for y in range(rows):
            for x in range(self.columns):
                index = y + x * rows
                if index >= len(lines):
                    continue
                decoder = lines[index]
                here = decoder.name == self.chosen
                refused = decoder.name in self.refusals
                digit = "–" if refused else str(index + 1) if index < DIGITS else " "
                title = clip(one_line(decoder.title), max(cell - 3, 1))
                style = "$text-disabled" if refused else "$primary bold" if here else "$foreground"
                parts += [
                    ("▸" if here else " ", "$primary bold"),
                    (digit, "$primary bold" if here else "$text-muted"),
                    (f" {title}", style),
                    " " * max(cell - 3 - cell_len(title), 0),
                ]
            parts.append("\n" if y < rows - 1 else "")
        return Content.assemble(*parts)

    def on_click(self, event: events.Click) -> None:
        """Reports the strategy that was clicked."""
        offset = event.get_content_offset(self)
        if offset is None:
            return
        rows = self._rows()
        column = min(offset.x * self.columns // max(self.content_size.width, 1), self.columns - 1)
        index = offset.y + column * rows
        if offset.y < rows and index < len(self.lines):
            self.post_message(self.Selected(self.lines[index].name))
