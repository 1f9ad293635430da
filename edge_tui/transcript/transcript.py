"""Holds the tokens of one run as a tree of records, and the path that a reader calls "the tokens".

Rows that share a beginning share its records, so beams cost only their tails. The *path* is the records from
the prompt to the end of the row in front (the best-scored one for beams, row 0 otherwise). While rows compete
the path can change, from `stable_length` on.

Knows no widget and no torch; numpy is imported with the first transcript, not with this module.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.engine import events, seeds
from edge_tui.transcript.row_front import Hypothesis, RowFront
from edge_tui.transcript.thinking import Thoughts
from edge_tui.transcript.token_table import Alternative, Column, TokenTable, TokenView
from edge_tui.transcript.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edge_tui.engine.events import Event, Finished, ParamChanged, Started, TokenBatch

__all__ = ["Alternative", "Column", "Hypothesis", "TokenView", "Transcript"]


class Transcript:
    """Holds the tokens of one run as they come.

    Feed it events in order (`apply`, or `extend`, `change` and `finish`); read it at any time, at any pace.
    All positions are positions on the path, so those of a continued run count its prefix.

    Args:
        started: The run.
        previous: The run that this one continues, if it does.
        prefix: Ids that it continues (`Request.prefix`). Where they agree with `previous` its records are
            copied; where an alternative was taken its numbers come from the alternatives recorded there.
        decode: Text of single tokens, for tokens of the prefix that `previous` does not have.
    """

    def __init__(
        self,
        started: Started,
        previous: Transcript | None = None,
        prefix: Sequence[int] = (),
        decode: Callable[[Sequence[int]], list[str]] | None = None,
    ) -> None:
        self.started = started
        self.finished: Finished | None = None
        self.changes: list[ParamChanged] = []
        """New values of parameters; `index` is the first token on the path that was chosen with it."""
        self._table = TokenTable(started.columns)
        self._tree = Tree()
        self._path = array("i")
        self._cuts = array("i")
        """Length of the path after each cut; its length is the revision."""
        self._is_stale = False
        self.thoughts = Thoughts(started.thinking)
        """State of `folded_texts`."""
        self._folded_revision = 0
        self._copy_prefix(previous, tuple(prefix), decode)
        self._prefix_length = self._stable_length = self._common_length = len(self._path)
        self._front = RowFront(started, self._table, self._tree, self._prefix_length)
        self._offset = started.prefix_tokens - self._prefix_length

    # Feeding.

    def apply(self, event: Event) -> None:
        """Adds what an event of this run says about its tokens; ignores other events."""
        match event:
            case events.TokenBatch():
                self.extend(event)
            case events.ParamChanged():
                self.change(event)
            case events.Finished():
                self.finish(event)

    def extend(self, batch: TokenBatch) -> None:
        """Copies a batch."""
        first = len(self._table)
        self._table.extend(batch)
        if self.started.rows == 1:
            self._path.extend(self._tree.add_line(len(batch)))
            self._stable_length = len(self._path)
        else:
            self._front.append(batch, first)
            self._is_stale = True

    def change(self, event: ParamChanged) -> None:
        """Adds a parameter's new value."""
        self.changes.append(replace(event, index=max(event.index - self._offset, 0)))

    def finish(self, event: Finished) -> None:
        """Ends the run. Where the strategy chose an answer among rows, the path becomes that answer."""
        self._follow_front()
        self.finished = event
        if event.answer is not None:
            leaf = self._find(event.answer)
            if leaf is not None:
                self._set_path(leaf)
        self._stable_length = len(self._path)
        if event.tail and self._path:
            self._table.texts[self._path[-1]] += event.tail
            self._cuts.append(len(self._path) - 1)

    # The path.

    def __len__(self) -> int:
        self._follow_front()
        return len(self._path)

    @property
    def record_count(self) -> int:
        """Tokens of all rows together; grows with every one that comes."""
        return len(self._table)

    @property
    def is_ranked(self) -> bool:
        """True where several rows compete for one answer by their scores; samples do not."""
        return self._front.is_ranked

    @property
    def stable_length(self) -> int:
        """Number of leading tokens of the path that can no longer change."""
        self._follow_front()
        return self._stable_length

    @property
    def common_length(self) -> int:
        """Number of leading tokens that all rows that could still win had in common, also after the end."""
        self._follow_front()
        return self._common_length if self.started.rows > 1 else len(self._path)

    @property
    def revision(self) -> int:
        """Grows each time that tokens were removed from the path."""
        self._follow_front()
        return len(self._cuts)

    def unchanged_since(self, revision: int) -> int:
        """Counts leading tokens of the path that are the same as they were at `revision`."""
        self._follow_front()
        return min(self._cuts[revision:], default=len(self._path))

    @property
    def text(self) -> str:
        """The path's raw text, not sanitised."""
        return "".join(self.texts())

    def texts(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Reads raw texts of the path's tokens `start` to `stop`."""
        self._follow_front()
        texts = self._table.texts
        return [texts[number] for number in self._path[start:stop]]

    def folded_texts(self, start: int, stop: int) -> list[str]:
        """Reads raw texts of the path's tokens `start` to `stop`, thoughts folded away; cheap in order."""
        thoughts = self.thoughts
        if start < thoughts.token_count or self.revision != self._folded_revision:
            thoughts = self.thoughts = Thoughts(self.started.thinking)
            self._folded_revision = self.revision
        thoughts.fold(self.texts(thoughts.token_count, start))
        return thoughts.fold(self.texts(start, stop))

    def ids(self, upto: int | None = None) -> tuple[int, ...]:
        """Reads ids of the path's first `upto` tokens, as `Request.prefix` takes them."""
        self._follow_front()
        return self._table.ids(self._path[:upto])

    def column(self, name: Column, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Reads one number of the path's tokens `start` to `stop`: a fresh array `[stop - start]`."""
        self._follow_front()
        return self._table.column(name, self._path[start:stop])

    def token(self, index: int) -> TokenView:
        """Reads the token at a position of the path.

        Raises:
            IndexError: the path has no such position.
        """
        self._follow_front()
        if not 0 <= index < len(self._path):
            raise IndexError(f"Token {index} was asked for, but the transcript has {len(self._path)}.")
        return self._table.view(self._path[index], index)

    def record_at(self, index: int) -> int:
        """Identifies the token at a position; another token there has another number."""
        self._follow_front()
        return self._path[index]

    def parent_row(self, index: int) -> int:
        """Returns the row of the step before that the token at a position continues."""
        self._follow_front()
        parent = self._tree.parent[record := self._path[index]]
        return self._tree.row[parent if parent >= self._prefix_length else record]

    def prefix_batch(self) -> TokenBatch | None:
        """Copies the tokens before the run's own, as one row; None if there are none."""
        length = self._prefix_length
        return self._table.batch(range(length), self.started.run) if length else None

    def changes_at(self, index: int) -> list[ParamChanged]:
        """Lists parameter changes whose first token is this one."""
        return [change for change in self.changes if change.index == index]

    def sample(self, row: int) -> Transcript:
        """Copies the tokens of one of several samples to the run that its seed alone would have written.

        Sample 0 is the transcript itself: its path is that of the first row, or a search's answer.

        Raises:
            IndexError: the run has no such row.
        """
        self._follow_front()
        if row == 0:
            return self
        searches = self._front.is_ranked or (self.finished is not None and self.finished.answer is not None)
        leaf = None if searches else self._front.leaf(row)
        if leaf is None:
            raise IndexError(f"Row {row} was asked for, which the run does not have.")
        begun = replace(self.started, rows=1, seed=seeds.of_sample(self.started.seed, row))
        copy = Transcript(begun, self, self.ids(self._prefix_length))
        own = self._tree.branch(leaf, self._prefix_length)
        copy._table.copy_records(self._table, own)
        copy._path.extend(copy._tree.add_line(len(own)))
        copy._stable_length = len(copy._path)
        copy.changes = list(self.changes)
        return copy

    def hypotheses(self) -> list[Hypothesis]:
        """Lists the live rows, best first, then the finished hypotheses, best first."""
        self._follow_front()
        return self._front.hypotheses(self._path, self._common_length, self._value("length_penalty", 0.0))

    def _copy_prefix(
        self,
        previous: Transcript | None,
        prefix: tuple[int, ...],
        decode: Callable[[Sequence[int]], list[str]] | None,
    ) -> None:
        """Adds the tokens that a run continues, with the numbers that `previous` has of them."""
        agreed = 0
        if previous is not None:
            ids = previous.ids(len(prefix))
            while agreed < len(ids) and ids[agreed] == prefix[agreed]:
                agreed += 1
            self._table.copy_records(previous._table, previous._path[:agreed])
            self.changes.extend(change for change in previous.changes if change.index < agreed)
        rest = prefix[agreed:]
        if len(self.started.kept_texts) == len(prefix):
            texts = list(self.started.kept_texts[agreed:])
        else:
            texts = decode(rest) if decode is not None and rest else [""] * len(rest)
        for i, (token, text) in enumerate(zip(rest, texts, strict=True)):
            if not i and previous is not None and agreed < len(previous):
                self._table.add_alternative(previous._table, previous._path[agreed], token, text)
            else:
                self._table.add_unknown(token, text)
        self._path.extend(self._tree.add_line(len(prefix)))

    def _value(self, name: str, default: float) -> float:
        """Returns a parameter's present value."""
        for change in reversed(self.changes):
            if change.name == name:
                return change.value
        resolved = self.started.values.get(name)
        return default if resolved is None or isinstance(resolved.value, tuple) else float(resolved.value)

    def _follow_front(self) -> None:
        """Moves the path to the row in front. Done when somebody reads, not for each step."""
        if not self._is_stale:
            return
        self._is_stale = False
        if live := self._front.live():
            self._set_path(self._front.best(live))
            self._common_length = self._front.common_length(live)
            self._stable_length = self._common_length if self._front.is_ranked else len(self._path)

    def _set_path(self, leaf: int) -> None:
        """Makes the path end at `leaf`, leaving the part that is shared."""
        common = self._tree.length(self._tree.on(self._path, leaf))
        if common < len(self._path):
            self._cuts.append(common)
            del self._path[common:]
        self._path.extend(self._tree.branch(leaf, common))

    def _find(self, answer: Sequence[int]) -> int | None:
        """Finds the record at which the answer ends; its last token may be an unrecorded end-of-sequence."""
        prefix = self._table.ids(range(self._prefix_length))
        for new in (tuple(answer), tuple(answer[:-1])):
            sequence = prefix + new
            for leaf in range(len(self._table) - 1, -1, -1):
                ends = self._tree.length(leaf) == len(sequence)
                if ends and self._table.ids(self._tree.branch(leaf)) == sequence:
                    return leaf
        return None
