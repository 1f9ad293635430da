"""Follows the rows of a run that decodes several: each one's newest record, and the finished hypotheses.

Strategies that search (beams) report scores in columns, which are known by their roles (`Column.role`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isnan, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from edge_tui.engine.events import Started, TokenBatch
    from edge_tui.transcript.token_table import TokenTable
    from edge_tui.transcript.tree import Tree

_DEAD = -1e8
"""Rows scored below this are not alive yet: at first every beam is the same prompt, and one is enough."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """Describes one of several sequences that compete.

    Attributes:
        row: Its row; for a finished one, the row that it continued.
        parent: The row of the step before that it continues.
        score: As the answer will be chosen: the sum divided by `length ** length_penalty`.
        total: Sum of log-probabilities (nats); NaN for a finished one.
        length: Tokens in all, those of the prefix included.
        start: Tokens before this position are those of the path.
        tokens: Ids from there on.
        text: Their text, not sanitised.
        finished: True once it has ended; it then can only be outdone.
    """

    row: int
    parent: int
    score: float
    total: float
    length: int
    start: int
    tokens: tuple[int, ...]
    text: str
    finished: bool = False


@dataclass(frozen=True, slots=True)
class _Finished:
    """Holds an ended hypothesis: its last recorded token, the row of that, and the token that ended it."""

    score: float
    leaf: int
    row: int
    token: int


class RowFront:
    """Holds the newest record of each row, now and one step before.

    Args:
        started: The run.
        table: Its records.
        tree: Their parents.
        prefix_length: Records that come before every row's first.
    """

    def __init__(self, started: Started, table: TokenTable, tree: Tree, prefix_length: int) -> None:
        self._name_of = {column.role: column.name for column in started.column_details}
        self.is_ranked = "sum" in self._name_of and started.rows > 1
        """True where rows compete by their scores; else the first row is the answer."""
        self._rows = started.rows
        self._table = table
        self._tree = tree
        self._prefix_length = prefix_length
        self._step = -1
        self._leaf: dict[int, int] = {}
        self._before: dict[int, int] = {}
        self._finished: list[_Finished] = []

    def append(self, batch: TokenBatch, first: int) -> None:
        """Adds a batch whose records stand in the table from number `first` on."""
        places: Iterable[tuple[int, int, int]] = zip(
            batch.step.tolist(), batch.row.tolist(), batch.parent.tolist(), strict=True
        )
        for number, (step, row, parent) in enumerate(places, first):
            if step != self._step:
                self._step, self._before = step, dict(self._leaf)
            self._leaf[row] = self._tree.add(self._before.get(parent, self._prefix_length - 1), row)
            self._add_finished(number)

    def live(self) -> list[int]:
        """Lists the newest records of the rows that are alive, in the order of rows."""
        leaves = [leaf for _, leaf in sorted(self._leaf.items())]
        return [leaf for leaf in leaves if not self._total(leaf) < _DEAD]

    def leaf(self, row: int) -> int | None:
        """Returns a row's newest record; None where it has none."""
        return self._leaf.get(row)

    def best(self, live: list[int]) -> int:
        """Finds the record at the end of the row in front."""
        if not self.is_ranked:
            return live[0]
        return max(live, key=lambda leaf: -inf if isnan(total := self._total(leaf)) else total)

    def common_length(self, live: list[int]) -> int:
        """Measures the prefix shared by everything that can still be the answer.

        That is the live rows and the best finished hypothesis: it beats the other finished ones.
        """
        return self._tree.common([*live, *(end.leaf for end in self._finished[:1])])

    def hypotheses(self, path: array[int], common_length: int, length_penalty: float) -> list[Hypothesis]:
        """Lists the live rows, best first, then the finished hypotheses, best first.

        Args:
            path: Records of the row in front.
            common_length: Count of leading records that all live rows share.
            length_penalty: The run's parameter.
        """

        def tail(leaf: int) -> tuple[int, list[int]]:
            # A finished hypothesis that cannot win may have left the others before.
            start = min(common_length, self._tree.length(self._tree.on(path, leaf)))
            return start, self._tree.branch(leaf, start)

        live = [self._live_hypothesis(leaf, *tail(leaf), length_penalty) for leaf in self.live()]
        if self.is_ranked:
            live.sort(key=lambda each: -inf if isnan(each.score) else each.score, reverse=True)
        return live + [self._finished_hypothesis(end, *tail(end.leaf)) for end in self._finished]

    def _live_hypothesis(
        self, leaf: int, start: int, records: list[int], length_penalty: float
    ) -> Hypothesis:
        """Describes the sequence of a live row."""
        length, total = self._tree.length(leaf), self._total(leaf)
        parent = self._tree.parent[leaf]
        return Hypothesis(
            row=self._tree.row[leaf],
            parent=self._tree.row[parent if parent >= self._prefix_length else leaf],
            score=total / max(length - self._prefix_length, 1) ** length_penalty,
            total=total,
            length=length,
            start=start,
            tokens=self._table.ids(records),
            text=self._table.text(records),
        )

    def _finished_hypothesis(self, end: _Finished, start: int, records: list[int]) -> Hypothesis:
        """Describes a sequence that has ended."""
        # At the greatest length the token that ends one is like any other, and stands in the newest live row.
        last = [
            leaf
            for leaf in self._leaf.values()
            if self._tree.parent[leaf] == end.leaf and self._table.ids([leaf]) == (end.token,)
        ]
        return Hypothesis(
            row=end.row,
            parent=end.row,
            score=end.score,
            total=nan,
            length=start + len(records) + 1,
            start=start,
            tokens=(*self._table.ids(records), end.token),
            text=self._table.text(records + last[:1]),
            finished=True,
        )

    def _add_finished(self, number: int) -> None:
        """Adds the hypothesis that a record reports as finished, if any; as many as rows stay, the best."""
        score, parent = self._number("score", number), self._number("parent", number)
        if isnan(score) or isnan(parent):
            return
        row = int(parent)
        leaf = self._before.get(row, self._prefix_length - 1)
        token = self._number("token", number)
        self._finished.append(_Finished(score, leaf, row, -1 if isnan(token) else int(token)))
        self._finished.sort(key=lambda end: -end.score)
        del self._finished[self._rows :]

    def _total(self, leaf: int) -> float:
        return self._number("sum", leaf) if self.is_ranked else nan

    def _number(self, role: str, number: int) -> float:
        """Reads the column of a role from a record; NaN where the strategy has none."""
        return self._table.extra(self._name_of.get(role, ""), number)
