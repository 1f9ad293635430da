"""Lays out what was recorded with a token: its numbers, and the table of its alternatives."""

from __future__ import annotations

from math import exp, inf, isnan, log, nan
from textwrap import wrap
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len

from edge_tui.engine.token_fields import KEPT, UNKNOWN
from edge_tui.transcript.fitting import fit_start
from edge_tui.transcript.values_at import remover_at, strategy_of, values_at
from edge_tui.util.formatting import bar, compact_float, percent
from edge_tui.util.sanitise import one_line, sanitise, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.decoders.base import Column
    from edge_tui.transcript.transcript import Alternative, TokenView, Transcript
    from edge_tui.tui.widgets.line_panel import Line

_BESIDE = 64
"""Least width that sets facts and alternatives side by side in a low panel."""
_LOW = 16
"""Lines under which a panel is low."""
_FACTS = 30
"""Width of the facts then."""
_SHORTEST_TEXT = 8
"""Cells of an alternative's text, if there are as many."""
_LONGEST_NAME = 9
"""Cells of a column's name."""


class Row(NamedTuple):
    """Holds one line of the table of alternatives."""

    id: int
    text: str
    raw: float
    final: float
    taken: bool
    own: tuple[float, ...] = ()
    """The strategy's numbers, in the order of its columns."""
    cut_by: str = ""
    """The stage that removed it; "" where none did, or that is not known."""


class TokenRecord:
    """Reads the record of one token, and writes its lines.

    Args:
        decode: Text of single tokens (`Engine.decode`).
    """

    def __init__(self, decode: Callable[[Sequence[int]], list[str]]) -> None:
        self._texts_of = decode
        self._transcript: Transcript | None = None
        self.show_final = False
        self.token: TokenView | None = None
        self.number: int | None = None
        """The record's number in the transcript; another token in the same place has another."""
        self.rows: list[Row] = []
        self._columns: tuple[str, ...] = ()
        self._cut_by = ""
        self._table_y = 0
        self._top = 0
        self._size = (0, 0)

    def read(self, transcript: Transcript | None, index: int | None) -> None:
        """Reads a token from a transcript, and its alternatives with their numbers."""
        self._transcript = transcript
        self.token, self.number, self.rows, self._columns = None, None, [], ()
        if transcript is None or index is None or not 0 <= index < len(transcript):
            return
        token = self.token = transcript.token(index)
        self.number = transcript.record_at(index)
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
        removers = {
            other.id: remover_at(transcript, stage, index)
            for other, stage in zip(token.top, token.removing_stage, strict=False)
            if stage not in (KEPT, UNKNOWN)
        }
        listed = [other.id for other in others]
        if token.id not in listed:
            listed.append(token.id)
        texts = self._texts_of(listed)
        texts += [""] * (len(listed) - len(texts))
        for id, text in zip(listed, texts, strict=True):
            shares = exp(raw.get(id, nan)), exp(final.get(id, nan))
            cut_by = removers.get(id, "")
            self.rows.append(Row(id, visible(text), *shares, id == token.id, numbers.get(id, ()), cut_by))

    @property
    def first_other(self) -> int:
        """The first line of the table that is another token than the one that was taken."""
        return next((i for i, row in enumerate(self.rows) if not row.taken), 0)

    @property
    def own(self) -> dict[str, dict[int, float]]:
        """The strategy's numbers of the alternatives by their names, each by token."""
        return {
            name: {row.id: row.own[i] for row in self.rows if row.own} for i, name in enumerate(self._columns)
        }

    def row_at(self, x: int, y: int) -> int | None:
        """Finds the line of the table at a cell."""
        line = y - self._table_y - 1
        width, height = self._size
        if line < 0 or (width >= _BESIDE and height < _LOW and x < _FACTS):
            return None
        return self._top + line if self._top + line < len(self.rows) else None

    def _numbers_of(self, token: TokenView | Alternative) -> tuple[float, ...]:
        """Lists the numbers that stand in the table."""
        return tuple(token.extras[name] for name in self._columns)

    def lines(self, width: int, height: int, marked: int) -> list[Line]:
        """Writes the token's facts above the alternatives; beside them where there is no height.

        Args:
            width: Cells.
            height: Lines.
            marked: Line of the table that is highlighted.
        """
        self._size = width, height
        if width >= _BESIDE and height < _LOW:
            facts = self._facts(_FACTS, height)[:height]
            table = self._table(width - _FACTS - 2, height, marked)
            self._table_y = 0
            blank: Line = ((" " * _FACTS, ""),)
            facts += [blank] * (height - len(facts))
            table += [()] * (height - len(table))
            return [(*left, ("  ", ""), *right) for left, right in zip(facts, table, strict=True)]
        facts = self._facts(width, height // 2)[: max(height - 3, 2)]
        self._table_y = len(facts)
        return facts + self._table(width, height - len(facts), marked)

    def _facts(self, width: int, height: int) -> list[Line]:
        """Writes the token's own numbers and the strategy's, in about `height` lines."""
        token, transcript = self.token, self._transcript
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
        if token.candidate_count >= 0:
            margin = f"{token.margin:.2f}" if token.margin < inf else "n/a"
            lines.append(self._fact(width, "margin", margin, "kept", f"{token.candidate_count:,}"))
        facts = len(lines)
        for change in transcript.changes_at(token.index):
            sentence = f"▸ {sanitise(change.name)} = {change.value:.4g} from here"
            lines.append(((fit_start(sentence, width), "$warning"),))
        lines[facts:facts] = self._own_facts(width, height - len(lines))
        return lines

    def _own_facts(self, width: int, height: int) -> list[Line]:
        """Writes the strategy's own numbers of a token that do not stand in the table.

        Each has lines of its own with its help where all of them fit into `height`; else they share one line.
        """
        assert self.token is not None
        assert self._transcript is not None
        short: list[str] = []
        full: list[Line] = []
        for column in self._transcript.started.column_details:
            shown = self._own_fact(column, self.token.extras[column.name])
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
        fact = column.fact(value, lambda id: visible(next(iter(self._texts_of([id])), "")))
        fact = column.text(value) if isnan(value) else fact
        return fact and f"{one_line(column.name)} {one_line(fact)}"

    @staticmethod
    def _fact(width: int, left: str, first: str, right: str, second: str) -> Line:
        first, room = first.strip(), width - len(left) - len(right) - len(first.strip()) - 4
        shown = fit_start(second.strip(), max(room, 0))
        return (f"{left} ", "$text-muted"), (f"{first}  ", ""), (f"{right} ", "$text-muted"), (shown, "")

    def _table(self, width: int, height: int, marked: int) -> list[Line]:
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
        top = self._top = min(max(marked - room // 2, 0), max(len(self.rows) - room, 0))
        lines = [head]
        for i, row in enumerate(self.rows[top : top + room], top):
            shares: list[float] = [getattr(row, name) for name in heads]
            share = row.final if self.show_final else row.raw
            here = i == marked
            style = "reverse" if here else "bold" if row.taken else ""
            shape, paint = bar(0.0 if isnan(share) else share, bar_width), "$primary"
            if row.cut_by and not row.own:
                shape, paint = _cut_in(row.cut_by, bar_width), "$error"
            elif here:
                # On the highlight a bar would be a hole: without colours it is in the background's.
                shape = " " * bar_width
            lines.append(
                (
                    (("●" if row.taken else "▸" if here else " ") + " ", style),
                    (fit_start(row.text, text_width) + " ", style),
                    (shape, style if here else paint),
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


def _cut_in(stage: str, cells: int) -> str:
    """Writes what removed a token, without the stage's values where they do not fit."""
    texts = (f"cut by {stage}", f"cut by {stage.partition(' ')[0]}", "cut")
    return fit_start(next((text for text in texts if cell_len(text) <= cells), texts[-1]), cells)


def _entropy(token: TokenView) -> str:
    if isnan(token.entropy):
        return "n/a"
    return f"{token.entropy:.2f} nats/{token.entropy / log(2):.2f} bits"
