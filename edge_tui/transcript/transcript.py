"""What a run has said so far: records of tokens, joined by parent pointers.

Rows that share a beginning share its records, so beams cost only their tails. What a reader calls "the
tokens" is the *path*: the records from the prompt to the end of the row in front (the best-scored one for
beams, row 0 otherwise). While rows compete the path can change; `settled` says how far it no longer can.

Knows no widget and no torch; numpy is imported with the first transcript, not with this module.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import TYPE_CHECKING

from edge_tui.transcript.thinking import Thoughts
from edge_tui.transcript.token_table import Alternative, Column, Records, TokenView
from edge_tui.transcript.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edge_tui.engine.events import Finished, ParamChanged, Started, TokenBatch

__all__ = ["Alternative", "Change", "Column", "Hypothesis", "TokenView", "Transcript"]

_DEAD = -1e8
"""Rows scored below this are not alive yet: at first every beam is the same prompt, and one is enough."""


@dataclass(frozen=True, slots=True)
class Change:
    """A parameter took a new value during the run; `index` is the first token it held for."""

    index: int
    name: str
    value: float
    version: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One of several sequences that compete.

    Attributes:
        row: Its row; for a finished one, the row that it continued.
        parent: The row of the step before that it continues.
        score: As the answer will be chosen: the sum divided by `length ** length_penalty`.
        total: Sum of log-probabilities (nats); NaN for a finished one.
        length: Tokens in all, kept ones included.
        start: Tokens before this position are those of the path.
        tokens: Ids from there on.
        text: Their text, not sanitised.
        finished: Whether it has ended; it then can only be outdone.
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
class _End:
    """A hypothesis that ended: its last recorded token, the row of that, and the token that ended it."""

    score: float
    leaf: int
    row: int
    token: int


@dataclass(slots=True)
class _Rows:
    """The front of the tree: the newest record of each row, now and one step before."""

    step: int = -1
    leaf: dict[int, int] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)


class Transcript:
    """The tokens of one run as they come.

    Feed it events in order (`extend`, `change`, `finish`); read it at any time, at any pace. All positions
    are positions on the path, so a continued run counts the tokens that it kept.

    Args:
        started: The run.
        previous: The run that this one continues, if it does.
        prefix: Ids that were kept (`Request.prefix`). Where they agree with `previous` its records are
            taken over; where an alternative was taken its numbers come from the alternatives recorded there.
        decode: Text of single tokens, for kept tokens that `previous` does not have.
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
        self.changes: list[Change] = []
        self._records = Records(started.columns)
        self._tree = Tree()
        self._path = array("i")
        self._cuts = array("i")
        self._stale = False
        self._settled = 0
        self._shared = 0
        self._rows = _Rows()
        self._ended: list[_End] = []
        self.thoughts = Thoughts(started.thinking)
        """What `folded` found."""
        self._folded_at = 0
        self._ranked = "score" in started.columns and started.rows > 1
        self._keep(previous, tuple(prefix), decode)
        self._kept = len(self._records)
        self._offset = started.prefix_tokens - self._kept

    # Feeding.

    def extend(self, batch: TokenBatch) -> None:
        """Takes over a batch; the batch itself is not kept."""
        count = len(self._records)
        self._records.extend(batch)
        if self.started.rows == 1:
            self._append_line(len(batch))
        else:
            self._append_rows(batch, count)

    def change(self, event: ParamChanged) -> None:
        """Notes that a parameter took a new value."""
        index = max(event.index - self._offset, 0)
        self.changes.append(Change(index, event.name, event.value, event.version))

    def finish(self, event: Finished) -> None:
        """Notes the end. Where the strategy chose an answer among rows, the path becomes that answer."""
        self._sync()
        self.finished = event
        if event.answer is not None:
            leaf = self._find(event.answer)
            if leaf is not None:
                self._walk(leaf)
        self._settled = len(self._path)
        if event.tail and self._path:
            self._records.texts[self._path[-1]] += event.tail
            self._cuts.append(len(self._path) - 1)

    # The path.

    def __len__(self) -> int:
        self._sync()
        return len(self._path)

    @property
    def records(self) -> int:
        """Tokens of all rows together; grows with every one that comes."""
        return len(self._records)

    @property
    def settled(self) -> int:
        """How many tokens of the path can no longer change."""
        self._sync()
        return self._settled

    @property
    def shared(self) -> int:
        """How many tokens all the rows that could still win had in common, also after the end."""
        self._sync()
        return self._shared if self.started.rows > 1 else len(self._path)

    @property
    def revision(self) -> int:
        """Grows each time that tokens were taken back from the path."""
        self._sync()
        return len(self._cuts)

    def valid_since(self, revision: int) -> int:
        """How many leading tokens of the path are the same as they were at `revision`."""
        self._sync()
        return min(self._cuts[revision:], default=len(self._path))

    @property
    def text(self) -> str:
        """The path's raw text, not sanitised."""
        return "".join(self.texts())

    def texts(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Raw texts of the path's tokens `start` to `stop`."""
        self._sync()
        texts = self._records.texts
        return [texts[number] for number in self._path[start:stop]]

    def folded(self, start: int, stop: int) -> list[str]:
        """Raw texts of the path's tokens `start` to `stop`, thoughts folded away; cheap in order."""
        thoughts = self.thoughts
        if start < thoughts.fed or self.revision != self._folded_at:
            thoughts = self.thoughts = Thoughts(self.started.thinking)
            self._folded_at = self.revision
        thoughts.fold(self.texts(thoughts.fed, start))
        return thoughts.fold(self.texts(start, stop))

    def ids(self, upto: int | None = None) -> tuple[int, ...]:
        """Ids of the path's first `upto` tokens, as `Request.prefix` wants them."""
        self._sync()
        return self._records.ids(self._path[:upto])

    def column(self, name: Column, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """One number for each of the path's tokens `start` to `stop`: a fresh array `[stop - start]`."""
        self._sync()
        return self._records.column(name, self._path[start:stop])

    def token(self, index: int) -> TokenView:
        """The token at a position of the path.

        Raises:
            IndexError: the path has no such position.
        """
        self._sync()
        if not 0 <= index < len(self._path):
            raise IndexError(f"Token {index} was asked for, but the transcript has {len(self._path)}.")
        return self._records.view(self._path[index], index)

    def record_at(self, index: int) -> int:
        """Identity of the token at a position: it changes exactly when another token takes the place."""
        self._sync()
        return self._path[index]

    def kept(self) -> TokenBatch | None:
        """What was taken over from the run that this one continues, as one row; None if nothing was."""
        return self._records.batch(range(self._kept), self.started.run) if self._kept else None

    def changes_at(self, index: int) -> list[Change]:
        """Parameter changes whose first token is this one."""
        return [change for change in self.changes if change.index == index]

    # The competition.

    def hypotheses(self) -> list[Hypothesis]:
        """The live rows, best first, then the finished hypotheses, best first."""
        self._sync()
        live = [
            self._hypothesis(leaf, self._tree.row[leaf], self._parent_row(leaf), self._total(leaf))
            for leaf in self._live()
        ]
        if self._ranked:
            live.sort(key=lambda h: -inf if isnan(h.score) else h.score, reverse=True)
        return live + [self._finished_hypothesis(end) for end in self._ended]

    def _hypothesis(self, leaf: int, row: int, parent: int, total: float) -> Hypothesis:
        start, tail = self._tail(leaf)
        length = self._tree.length(leaf)
        return Hypothesis(
            row=row,
            parent=parent,
            score=total / max(length - self._kept, 1) ** self._value("length_penalty", 1.0),
            total=total,
            length=length,
            start=start,
            tokens=self._records.ids(tail),
            text="".join(self._records.texts[number] for number in tail),
        )

    def _finished_hypothesis(self, end: _End) -> Hypothesis:
        start, tail = self._tail(end.leaf)
        # At the greatest length what ends is a token like any other, and stands in the newest live row.
        last = [
            leaf
            for leaf in self._rows.leaf.values()
            if self._tree.parent[leaf] == end.leaf and self._records.ids([leaf]) == (end.token,)
        ]
        return Hypothesis(
            row=end.row,
            parent=end.row,
            score=end.score,
            total=nan,
            length=start + len(tail) + 1,
            start=start,
            tokens=(*self._records.ids(tail), end.token),
            text="".join(self._records.texts[number] for number in tail + last[:1]),
            finished=True,
        )

    def _tail(self, leaf: int) -> tuple[int, list[int]]:
        """The records that end at `leaf`, from where they are no longer shared by all."""
        # A finished hypothesis that cannot win may have left the others before.
        start = min(self._shared, self._tree.length(self._tree.on(self._path, leaf)))
        return start, self._tree.branch(leaf, start)

    # Inside.

    def _append_line(self, n: int) -> None:
        """Adds `n` records to the only row there is."""
        self._path.extend(self._tree.add_line(n))
        self._settled = len(self._path)

    def _append_rows(self, batch: TokenBatch, count: int) -> None:
        rows = self._rows
        steps: Iterable[tuple[int, int, int]] = zip(
            batch.step.tolist(), batch.row.tolist(), batch.parent.tolist(), strict=True
        )
        for number, (step, row, parent) in enumerate(steps, count):
            if step != rows.step:
                rows.step, rows.before = step, dict(rows.leaf)
            rows.leaf[row] = self._tree.add(rows.before.get(parent, self._kept - 1), row)
            self._note_end(number)
        self._stale = True

    def _note_end(self, number: int) -> None:
        """Looks whether a hypothesis ended at this step: it is told with any row's record, as its score, the
        row it continued and its last token. Kept are as many as there are rows, the best.
        """
        score = self._records.extra("finished", number)
        if isnan(score):
            return
        row = int(self._records.extra("finished_parent", number))
        leaf = self._rows.before.get(row, self._kept - 1)
        token = self._records.extra("finished_id", number)
        self._ended.append(_End(score, leaf, row, -1 if isnan(token) else int(token)))
        self._ended.sort(key=lambda end: -end.score)
        del self._ended[self.started.rows :]

    def _keep(
        self,
        previous: Transcript | None,
        prefix: tuple[int, ...],
        decode: Callable[[Sequence[int]], list[str]] | None,
    ) -> None:
        """Takes over the tokens that a continued run kept."""
        agreed = 0
        if previous is not None:
            ids = previous.ids(len(prefix))
            while agreed < len(ids) and ids[agreed] == prefix[agreed]:
                agreed += 1
            self._records.take_over(previous._records, previous._path[:agreed])
            self.changes.extend(change for change in previous.changes if change.index < agreed)
        rest = prefix[agreed:]
        if len(self.started.kept_texts) == len(prefix):
            texts = list(self.started.kept_texts[agreed:])
        else:
            texts = decode(rest) if decode is not None and rest else [""] * len(rest)
        for i, (token, text) in enumerate(zip(rest, texts, strict=True)):
            if not i and previous is not None and agreed < len(previous):
                self._records.add_alternative(previous._records, previous._path[agreed], token, text)
            else:
                self._records.add_unknown(token, text)
        self._append_line(len(prefix))
        self._shared = len(prefix)

    def _value(self, name: str, default: float) -> float:
        """A parameter's present value."""
        for change in reversed(self.changes):
            if change.name == name:
                return change.value
        resolved = self.started.values.get(name)
        return float(resolved.value) if resolved is not None else default

    def _total(self, leaf: int) -> float:
        return self._records.extra("score", leaf) if self._ranked else nan

    def _live(self) -> list[int]:
        """Newest records of the rows that are alive, in the order of rows."""
        leaves = [leaf for _, leaf in sorted(self._rows.leaf.items())]
        return [leaf for leaf in leaves if not self._total(leaf) < _DEAD]

    def _parent_row(self, leaf: int) -> int:
        parent = self._tree.parent[leaf]
        return self._tree.row[parent if parent >= self._kept else leaf]

    def _front(self, live: list[int]) -> int:
        """The record at the end of the row in front."""
        if not self._ranked:
            return live[0]
        return max(live, key=lambda leaf: -inf if isnan(total := self._total(leaf)) else total)

    def _sync(self) -> None:
        """Follows the row in front. Done when somebody looks, not for each step."""
        if not self._stale:
            return
        self._stale = False
        live = self._live()
        if live:
            self._walk(self._front(live))
            self._shared = self._common(live)
            self._settled = self._shared if self._ranked else len(self._path)

    def _walk(self, leaf: int) -> None:
        """Makes the path end at `leaf`, keeping the part that is shared."""
        keep = self._tree.length(self._tree.on(self._path, leaf))
        if keep < len(self._path):
            self._cuts.append(keep)
            del self._path[keep:]
        self._path.extend(self._tree.branch(leaf, keep))

    def _common(self, live: list[int]) -> int:
        """Length of the prefix shared by everything that can still be the answer.

        That is the live rows and the best finished hypothesis: it beats the other finished ones.
        """
        return self._tree.common([*live, *(end.leaf for end in self._ended[:1])])

    def _find(self, answer: Sequence[int]) -> int | None:
        """The record at which the answer ends; its last token may be an unrecorded end-of-sequence."""
        kept = self._records.ids(range(self._kept))
        for new in (tuple(answer), tuple(answer[:-1])):
            wanted = kept + new
            for leaf in range(len(self._records) - 1, -1, -1):
                ends = self._tree.length(leaf) == len(wanted)
                if ends and self._records.ids(self._tree.branch(leaf)) == wanted:
                    return leaf
        return None
