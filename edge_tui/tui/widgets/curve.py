"""Shows the answer as a curve in one line: surprise or another number of each token, all of it in sight."""

from __future__ import annotations

from itertools import groupby
from math import isnan
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from textual.geometry import Region
from textual.reactive import reactive
from textual.strip import Strip

from edge_tui.transcript.curve import HEIGHTS, OFF, QUANTITIES, UNKNOWN, Cells, CurveValues, divide
from edge_tui.tui.widgets.line_panel import LinePanel
from edge_tui.util.formatting import compact_count, compact_float
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from textual import events

    from edge_tui.transcript.curve import Quantity
    from edge_tui.transcript.transcript import Transcript
    from edge_tui.tui.widgets.line_panel import Line
    from edge_tui.tui.widgets.token_pane import TokenPane

_MARKS, _ASCII_MARKS = "▁▂▃▄▅▆▇█", "_.-:=+*#"
_TICK = "╎"
_LABEL, _VALUE = 9, 6
"""Columns of the name on the left, and of the value on the right."""
_LEAST = 24
"""Columns that a curve keeps beside the names of turned parameters."""


class Curve(LinePanel):
    """Draws cells of eight heights under the tokens; the one with the cursor's token is reversed.

    A tick stands before the cell in which a parameter was turned. Only columns that changed are painted.

    Args:
        pane: The tokens; a click moves its cursor.
    """

    DEFAULT_CSS = """
    Curve { height: 1; display: none; margin: 0 1 0 0; }
    Curve.-shown { display: block; }
    """

    quantity: reactive[str] = reactive(OFF, repaint=False)
    """Name of the number that is shown, or `OFF`."""
    ascii_only: reactive[bool] = reactive(False, repaint=False)

    def __init__(self, pane: TokenPane, **options: Any) -> None:
        super().__init__(**options)
        self._pane = pane
        self._transcript: Transcript | None = None
        self._values: CurveValues | None = None
        self._cells = Cells()

    def on_mount(self) -> None:
        """Follows the cursor and the probabilities of the pane."""
        self.watch(self._pane, "cursor", self.update_lines, init=False)
        self.watch(self._pane, "show_final", self._read_anew, init=False)

    def show(self, transcript: Transcript | None) -> None:
        """Shows another transcript, or none."""
        self._transcript = transcript
        self._read_anew()

    def refresh_tail(self) -> None:
        """Shows the tokens that came or went since the last call."""
        if self._values is not None:
            self.update_lines()

    def show_next(self) -> str:
        """Shows the next number, or none after the last; returns its name."""
        names = (OFF, *QUANTITIES)
        self.quantity = names[(names.index(self.quantity) + 1) % len(names)]
        return self.quantity

    def watch_quantity(self) -> None:
        """Shows another number, or gives the line back."""
        self.set_class(self.quantity != OFF, "-shown")
        self._read_anew()

    def watch_ascii_only(self) -> None:
        """Draws with other marks."""
        self.update_lines()

    def _read_anew(self) -> None:
        transcript, quantity = self._transcript, QUANTITIES.get(self.quantity)
        self._values = None
        if transcript is not None and quantity is not None:
            self._values = CurveValues(transcript, quantity, self._pane.show_final)
        self.update_lines()

    def update_lines(self) -> None:
        """Composes the line again and paints the columns that differ."""
        before, width = self._lines, self.size.width
        self._lines = self.compose_lines(width, 1) if width and self._values is not None else ()
        if not before or not self._lines or len(before[0]) != len(self._lines[0]):
            self.refresh()
            return
        pairs = enumerate(zip(before[0], self._lines[0], strict=True))
        if changed := [x for x, (old, new) in pairs if old != new]:
            self.refresh(Region(changed[0], 0, changed[-1] + 1 - changed[0], 1))

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes name, cells and value; each column is a part of its own."""
        values = self._values
        assert values is not None
        cursor, changes = self._pane.cursor, values.transcript.changes
        names = [one_line(f"  {each.name} {each.value:.6g} from #{each.index}") for each in changes]
        longest = max(map(len, names), default=0)
        right = _VALUE + (longest if width - _LABEL - _VALUE - longest >= _LEAST else 0)
        turned = [each.index for each in changes]
        self._cells = divide(values.read(), turned, values.quantity, width - _LABEL - right)
        line = [*_columns(values.quantity.name.ljust(_LABEL), "$text-muted"), *self._curve(cursor)]
        line += _columns(" " * (width - right - len(line)))
        shown = "" if cursor is None else _value_text(values.value(cursor), values.quantity)
        line += _columns(shown.rjust(_VALUE))
        held = [name for name, at in zip(names, turned, strict=True) if cursor is None or at <= cursor]
        line += _columns("".join(held[-1:])[: right - _VALUE].ljust(right - _VALUE), "$text-muted")
        return [tuple(line)]

    def _curve(self, cursor: int | None) -> list[tuple[str, str]]:
        """Draws cells and ticks, a column each."""
        cells, values = self._cells, self._values
        assert values is not None
        here = cells.cell_of(cursor) if cursor is not None and cells.tokens else UNKNOWN
        marks = _ASCII_MARKS if self.ascii_only else _MARKS
        if cells.heights and set(cells.heights) == {UNKNOWN}:
            return _columns("not recorded", "$text-muted")
        columns = []
        for cell, height in enumerate(cells.heights):
            if cell in cells.ticks:
                columns.append((_TICK, "$warning"))
            step = height if values.quantity.lowest else HEIGHTS - 1 - height
            mark, style = (" ", "") if height == UNKNOWN else (marks[height], f"$token-{step}")
            columns.append((mark, f"{style} reverse".strip() if cell == here else style))
        return columns

    def render_line(self, y: int) -> Strip:
        """Draws the line; neighbours of one style become one segment."""
        base = self._style("")
        groups = groupby(self._lines[y], itemgetter(1)) if y < len(self._lines) else ()
        texts = [("".join(text for text, _ in group), style) for style, group in groups]
        strip = Strip([Segment(text, self._style(style)) for text, style in texts])
        return strip.adjust_cell_length(self.size.width, base)

    def on_click(self, event: events.Click) -> None:
        """Goes to the token that gives the clicked cell its height."""
        cell = self._cells.cell_at(event.x - _LABEL)
        if cell is not None and event.x >= _LABEL:
            self._pane.focus()
            self._pane.cursor = self._cells.tokens[cell]


def _value_text(value: float, quantity: Quantity) -> str:
    """Writes a value in five cells."""
    return compact_count(value) if quantity.whole and not isnan(value) else compact_float(value)


def _columns(text: str, style: str = "") -> list[tuple[str, str]]:
    return [(each, style) for each in text]
