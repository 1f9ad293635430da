"""Shows the recorded numbers of one token, and its alternatives."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, isnan, log, nan
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.cells import cell_len
from textual.message import Message
from textual.reactive import reactive

from edge_tui.transcript.fitting import visible as visible
from edge_tui.transcript.values_at import strategy_of, values_at
from edge_tui.tui.actions import bindings
from edge_tui.tui.widgets.line_panel import LinePanel, fit_start
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.util.formatting import bar, compact_float, percent
from edge_tui.util.sanitise import one_line, sanitise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from textual import events

    from edge_tui.decoders.base import Column
    from edge_tui.transcript.transcript import Alternative, TokenView, Transcript
    from edge_tui.tui.widgets.line_panel import Line

_BESIDE = 64
"""Least width that sets facts and alternatives side by side in a low panel."""
_FACTS = 30
"""Width of the facts then."""
_SHORTEST_TEXT = 8
"""Cells of an alternative's text, if there are as many."""
_LONGEST_NAME = 9
"""Cells of a column's name."""

_MARKED_BAR = "$foreground on $primary reverse"
"""Paints the bar in its own colour on the highlight, and in the background's where there are no colours."""

_HINT = ("Move onto a token (arrows,", "h j k l or a click) to see", "its alternatives.")


class Row(NamedTuple):
    """Holds one line of the table of alternatives."""

    id: int
    text: str
    raw: float
    final: float
    taken: bool
    own: tuple[float, ...] = ()
    """The strategy's numbers, in the order of its columns."""


class Inspector(LinePanel, can_focus=True):
    """Shows one token of a transcript with its alternatives; enter takes the marked one.

    Args:
        decode: Text of single tokens (`Engine.decode`).
    """

    DEFAULT_CSS = """
    Inspector { min-width: 30; min-height: 8; }
    """

    BINDINGS = bindings("inspector")

    show_final: reactive[bool] = reactive(False, repaint=False)
    """List the distribution that was drawn from, rather than the model's own."""
    marked: reactive[int] = reactive(0, repaint=False)
    """Line of the table that enter takes."""

    @dataclass
    class MoveToken(Message):
        """Asks for the token `step` further on."""

        step: int

    def __init__(self, decode: Callable[[Sequence[int]], list[str]], **options: Any) -> None:
        super().__init__(**options)
        self._texts_of = decode
        self._transcript: Transcript | None = None
        self._index: int | None = None
        self._token: TokenView | None = None
        self._record: int | None = None
        self._rows: list[Row] = []
        self._columns: tuple[str, ...] = ()
        self._cut_by = ""
        self._table_y = 0
        self._top = 0

    @property
    def index(self) -> int | None:
        """Position of the token shown."""
        return self._index

    def show(self, transcript: Transcript | None, index: int | None) -> None:
        """Shows a token, or (None) how to choose one."""
        moved = transcript is not self._transcript or index != self._index
        self._transcript, self._index = transcript, index
        self._read()
        if moved:
            self.set_reactive(Inspector.marked, self._first_other())
        self.update_lines()

    def refresh_tail(self) -> None:
        """Shows the token again if it has changed, as it can while beams compete."""
        transcript, index = self._transcript, self._index
        if transcript is None or index is None:
            return
        record = transcript.record_at(index) if index < len(transcript) else None
        if record != self._record:
            self.show(transcript, index)

    # Reading the token's record.

    def _read(self) -> None:
        """Reads the token from the transcript, and its alternatives with their numbers."""
        transcript, index = self._transcript, self._index
        self._token, self._record, self._rows, self._columns = None, None, [], ()
        if transcript is None or index is None or not 0 <= index < len(transcript):
            return
        token = self._token = transcript.token(index)
        self._record = transcript.record_at(index)
        raw = {other.id: other.logp for other in token.top} | {token.id: token.raw_logp}
        final = {other.id: other.logp for other in token.final} | {token.id: token.final_logp}
        others = token.final if self.show_final else token.top
        self._columns = tuple(
            name for name in token.extras if any(not isnan(other.extras.get(name, nan)) for other in others)
        )
        numbers = {other.id: self._numbers_of(other) for other in others if other.extras}
        if numbers:
            decoder = strategy_of(transcript)
            self._cut_by = decoder.cut_by(values_at(transcript, index)) if decoder is not None else ""
            numbers[token.id] = self._numbers_of(token)
        listed = [other.id for other in others]
        if token.id not in listed:
            listed.append(token.id)
        texts = self._texts_of(listed)
        texts += [""] * (len(listed) - len(texts))
        for id, text in zip(listed, texts, strict=True):
            shares = exp(raw.get(id, nan)), exp(final.get(id, nan))
            self._rows.append(Row(id, visible(text), *shares, id == token.id, numbers.get(id, ())))

    def _numbers_of(self, token: TokenView | Alternative) -> tuple[float, ...]:
        """Lists the numbers that stand in the table."""
        return tuple(token.extras[name] for name in self._columns)

    def _first_other(self) -> int:
        return next((i for i, row in enumerate(self._rows) if not row.taken), 0)

    # Drawing.

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Writes the token's facts above the alternatives; beside them where there is no height."""
        if self._token is None:
            return [((fit_start(hint, width), "$text-muted italic"),) for hint in _HINT]
        if width >= _BESIDE and height < 16:
            facts = self._facts(_FACTS, height)[:height]
            table = self._table(width - _FACTS - 2, height)
            self._table_y = 0
            blank: Line = ((" " * _FACTS, ""),)
            facts += [blank] * (height - len(facts))
            table += [()] * (height - len(table))
            return [(*left, ("  ", ""), *right) for left, right in zip(facts, table, strict=True)]
        facts = self._facts(width, height // 2)[: max(height - 3, 2)]
        self._table_y = len(facts)
        return facts + self._table(width, height - len(facts))

    def _facts(self, width: int, height: int) -> list[Line]:
        """Writes the token's own numbers and the strategy's, in about `height` lines."""
        token, transcript = self._token, self._transcript
        assert token is not None
        assert transcript is not None
        text = visible(token.text) if token.text else "part of a character"
        number = f"  #{token.index} id {token.id}"
        room = max(width - len(number), 8)
        raw, final = percent(exp(token.raw_logp)), percent(exp(token.final_logp))
        rank = f"{token.rank + 1}" if token.rank >= 0 else "n/a"
        lines: list[Line] = [
            ((fit_start(text, room), "$accent bold"), (number, "$text-muted")),
            self._fact(width, "raw", raw, "final", final),
            self._fact(width, "rank", rank, "H", _entropy(token)),
        ]
        for change in transcript.changes_at(token.index):
            sentence = f"▸ {sanitise(change.name)} = {change.value:.4g} from here"
            lines.append(((fit_start(sentence, width), "$warning"),))
        lines[3:3] = self._own_facts(width, height - len(lines))
        return lines

    def _own_facts(self, width: int, height: int) -> list[Line]:
        """Writes the strategy's own numbers of a token that do not stand in the table.

        Each has lines of its own with its help where all of them fit into `height`; else they share one line.
        """
        assert self._token is not None
        assert self._transcript is not None
        short: list[str] = []
        full: list[Line] = []
        for column in self._transcript.started.column_details:
            shown = self._own_fact(column, self._token.extras[column.name])
            if not shown or column.name in self._columns:
                continue
            short.append(shown)
            description = one_line(column.description())
            room = width - cell_len(shown) - 2
            if cell_len(description) <= room:
                full.append(((f"{shown}  ", ""), (fit_start(description, room), "$text-muted")))
            else:
                full.append(((fit_start(shown, width), ""),))
                full += [
                    ((fit_start(f"  {part}", width), "$text-muted"),) for part in wrap(description, width - 2)
                ]
        if not short:
            return []
        has_help = any(column.help for column in self._transcript.started.column_details)
        return full if has_help and len(full) <= height else [((fit_start(" · ".join(short), width), ""),)]

    def _own_fact(self, column: Column, value: float) -> str:
        """Writes one number: ids as the text of their token; "" where there is none."""
        shown = column.text(value)
        if column.role in ("token", "parent"):
            if not value >= 0:
                return ""
            parent = f"row {value + 1:.0f}"
            shown = (
                parent if column.role == "parent" else visible(next(iter(self._texts_of([int(value)])), ""))
            )
        return f"{one_line(column.name)} {one_line(shown)}"

    @staticmethod
    def _fact(width: int, left: str, first: str, right: str, second: str) -> Line:
        first, room = first.strip(), width - len(left) - len(right) - len(first.strip()) - 4
        shown = fit_start(second.strip(), max(room, 0))
        return (f"{left} ", "$text-muted"), (f"{first}  ", ""), (f"{right} ", "$text-muted"), (shown, "")

    def _table(self, width: int, height: int) -> list[Line]:
        """Draws the alternatives with the strategy's numbers, and probabilities where there is room."""
        names = [one_line(name)[:_LONGEST_NAME] for name in self._columns]
        cells = [max(len(name), 5) + 1 for name in names]
        room = width - sum(cells)
        chosen = "final" if self.show_final else "raw"
        heads = (
            () if names and room < 2 + _SHORTEST_TEXT + 7 else (chosen,) if room < 40 else ("raw", "final")
        )
        used = 2 + sum(cells) + 7 * len(heads)
        text_width = min(max((width - used) // 2, min(_SHORTEST_TEXT, width - used - 1)), 24)
        bar_width = max(width - used - text_width - 1, 0)
        kind = "drawn from" if self.show_final else "the model's own"
        if len(kind) > text_width + bar_width:
            kind = chosen
        head: Line = (
            (fit_start(f"  {kind}", 3 + text_width + bar_width), "$text-muted"),
            ("".join(f"{name:>7}" for name in heads), "$text-muted"),
            ("".join(f"{name:>{n}}" for name, n in zip(names, cells, strict=True)), "$text-muted"),
        )
        room = max(height - 1, 0)
        top = self._top = min(max(self.marked - room // 2, 0), max(len(self._rows) - room, 0))
        lines = [head]
        for i, row in enumerate(self._rows[top : top + room], top):
            shares: list[float] = [getattr(row, name) for name in heads]
            share = row.final if self.show_final else row.raw
            here = i == self.marked
            style = "reverse" if here else "bold" if row.taken else ""
            lines.append(
                (
                    (("●" if row.taken else "▸" if here else " ") + " ", style),
                    (fit_start(row.text, text_width) + " ", style),
                    (bar(0.0 if isnan(share) else share, bar_width), _MARKED_BAR if here else "$primary"),
                    ("".join(f" {percent(each)}" for each in shares), style),
                    (self._own_numbers(row, cells), style),
                )
            )
        return lines

    def _own_numbers(self, row: Row, cells: Sequence[int]) -> str:
        """Writes the strategy's numbers of an alternative; over them the parameter that removed it."""
        own = row.own or (nan,) * len(cells)
        shown = "".join(f"{compact_float(each):>{n}}" for each, n in zip(own, cells, strict=True))
        if not own or own[-1] != -inf:
            return shown
        cut = f" cut by {self._cut_by}" if self._cut_by else " cut"
        visible_columns, room = len(cells), 0
        while visible_columns and room < len(cut):
            visible_columns -= 1
            room += cells[visible_columns]
        return shown[: sum(cells[:visible_columns])] + f"{cut:>{room}}"[:room]

    # Keys.

    def watch_marked(self) -> None:
        """Moves the mark in the table."""
        self.update_lines()

    def validate_marked(self, marked: int) -> int:
        """Keeps the mark within the table."""
        return min(max(marked, 0), max(len(self._rows) - 1, 0))

    def watch_show_final(self) -> None:
        """Lists the alternatives by the other probabilities."""
        self._read()
        self.marked = self._first_other()
        self.update_lines()

    def action_mark(self, step: int) -> None:
        """Moves the mark by lines."""
        self.marked += step

    def action_token(self, step: int) -> None:
        """Asks for the next or previous token."""
        self.post_message(self.MoveToken(step))

    def action_take(self) -> None:
        """Asks for the marked alternative."""
        if self._token is not None and self.marked < len(self._rows):
            self.post_message(TokenPane.TakeAlternative(self._token.index, self._rows[self.marked].id))

    def on_click(self, event: events.Click) -> None:
        """Marks the line that was clicked; a second click takes it."""
        offset = event.get_content_offset(self)
        if offset is None or self._token is None:
            return
        line = offset.y - self._table_y - 1
        beside = self.size.width >= _BESIDE and self.size.height < 16
        if line < 0 or (beside and offset.x < _FACTS):
            return
        if self._top + line < len(self._rows):
            again = self.marked == self._top + line
            self.marked = self._top + line
            if again:
                self.action_take()


def _entropy(token: TokenView) -> str:
    if isnan(token.entropy):
        return "n/a"
    return f"{token.entropy:.2f} nats/{token.entropy / log(2):.2f} bits"
