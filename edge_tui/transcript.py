"""What a run has said so far: tokens in columns, joined by parent pointers.

One record is one token of one row. Rows that share a beginning share its records, so beams cost only
their tails. What a reader calls "the tokens" is the *path*: the records from the prompt to the end of the
row in front (the best-scored one for beams, row 0 otherwise). While rows compete the path can change;
`settled` says how far it no longer can.

Knows no widget and no torch; numpy is imported with the first transcript, not with this module.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import TYPE_CHECKING, Literal

from edge_tui.engine.events import TOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from edge_tui.engine.events import Finished, ParamChanged, Started, TokenBatch

Column = Literal["id", "raw_logp", "final_logp", "rank", "entropy", "version"]

SCORE = "score"
"""Column in which a strategy that ranks its rows says how good each row is."""
FINISHED = "finished"
"""Column with the score of a hypothesis that ended at this step, NaN where none did."""
FINISHED_PARENT = "finished_parent"
"""Column with the row, of the step before, that the hypothesis in `FINISHED` continued."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have come instead; log-probability in nats."""

    id: int
    logp: float


@dataclass(frozen=True, slots=True)
class Change:
    """A parameter took a new value during the run; `index` is the first token it held for."""

    index: int
    name: str
    value: float
    version: int


@dataclass(frozen=True, slots=True)
class TokenView:
    """One token of the path with everything that is known about it. Built when looked at.

    Attributes:
        index: Position on the path.
        id: Token id.
        text: Raw text, not sanitised; "" while a character is incomplete.
        raw_logp: Under the model (nats); NaN where unknown.
        final_logp: In the distribution that was drawn from.
        rank: 0 is the model's most likely token; −1 where unknown.
        entropy: Of the model's distribution (nats).
        version: Of the parameter table.
        extras: The strategy's own columns by name.
        top: Most likely tokens under the model, best first.
        final: The same in the final distribution.
    """

    index: int
    id: int
    text: str
    raw_logp: float
    final_logp: float
    rank: int
    entropy: float
    version: int
    extras: dict[str, float]
    top: tuple[Alternative, ...]
    final: tuple[Alternative, ...]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One of several sequences that compete.

    Attributes:
        row: Its row; for a finished one, the row it continued.
        parent: The row of the step before that it continues.
        score: As its strategy ranks it; NaN where it doesn't.
        length: Tokens in all.
        tokens: Ids after the settled prefix.
        text: Their text, not sanitised.
        finished: Whether it has ended; it then can only be outdone.
    """

    row: int
    parent: int
    score: float
    length: int
    tokens: tuple[int, ...]
    text: str
    finished: bool = False


@dataclass(slots=True)
class _Ended:
    leaf: int
    row: int
    score: float


@dataclass(slots=True)
class _Rows:
    """The front of the tree: the newest record of each row, now and one step before."""

    step: int = -1
    leaf: dict[int, int] = field(default_factory=dict)
    before: dict[int, int] = field(default_factory=dict)


class Transcript:
    """The tokens of one run as they come.

    Feed it events in order (`extend`, `change`, `finish`); read it at any time, at any pace. All positions
    are positions on the path, so that a continued run counts the tokens it kept.

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
        import numpy as np

        self.started = started
        self.finished: Finished | None = None
        self.changes: list[Change] = []
        self._np = np
        self._records: NDArray[Any] = np.empty(0, self._dtype(len(started.columns)))
        self._count = 0
        self._texts: list[str] = []
        self._known: dict[str, str] = {}
        self._parent = array("i")
        self._row = array("i")
        self._depth = array("i")
        self._path = array("i")
        self._cuts = array("i")
        self._stale = False
        self._settled = 0
        self._rows = _Rows()
        self._ended: list[_Ended] = []
        self._ranked = SCORE in started.columns and started.rows > 1
        self._keep(previous, prefix, decode)
        self._kept = self._count
        self._offset = started.prefix_tokens - self._count

    # Feeding.

    def extend(self, batch: TokenBatch) -> None:
        """Takes over a batch; the batch itself is not kept."""
        count, n = self._count, len(batch)
        self._reserve(count + n)
        fresh = self._records[count : count + n]
        for name in self._records.dtype.names or ():
            fresh[name] = getattr(batch, name)
        intern = self._known.setdefault
        self._texts.extend(intern(text, text) for text in batch.text)
        self._count += n
        if self.started.rows == 1:
            self._append_single(batch, count, n)
        else:
            self._append_rows(batch, count)

    def change(self, event: ParamChanged) -> None:
        """Notes that a parameter took a new value."""
        index = max(event.index - self._offset, 0)
        self.changes.append(Change(index, event.name, event.value, event.version))

    def finish(self, event: Finished) -> None:
        """Notes the end; where the strategy chose an answer among rows, the path becomes that answer."""
        self.finished = event
        if event.answer is not None and self.started.rows > 1:
            leaf = self._find(event.answer)
            if leaf is not None:
                self._walk(leaf)
            self._stale = False
        self._sync()
        self._settled = len(self._path)

    # The path.

    def __len__(self) -> int:
        self._sync()
        return len(self._path)

    @property
    def records(self) -> int:
        """Tokens of all rows together; grows with every one that comes."""
        return self._count

    @property
    def settled(self) -> int:
        """How many tokens of the path can no longer change."""
        self._sync()
        return self._settled

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
        return "".join(self.texts())

    def texts(self, start: int = 0, stop: int | None = None) -> list[str]:
        """Raw texts of the path's tokens `start` to `stop`."""
        self._sync()
        texts = self._texts
        return [texts[i] for i in self._path[start:stop]]

    def ids(self, upto: int | None = None) -> tuple[int, ...]:
        """Ids of the path's first `upto` tokens, as `Request.prefix` wants them."""
        return tuple(self.column("id", 0, upto).tolist())

    def column(self, name: Column, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """One number for each of the path's tokens `start` to `stop`: a fresh array `[stop - start]`."""
        self._sync()
        chosen: NDArray[np.generic] = self._records[name][self._path[start:stop]]
        return chosen

    def token(self, index: int) -> TokenView:
        """The token at a position of the path.

        Raises:
            IndexError: the path has no such position.
        """
        self._sync()
        if not 0 <= index < len(self._path):
            raise IndexError(f"Token {index} was asked for, but the transcript has {len(self._path)}.")
        at = self._path[index]
        record = self._records[at]
        return TokenView(
            index=index,
            id=int(record["id"]),
            text=self._texts[at],
            raw_logp=float(record["raw_logp"]),
            final_logp=float(record["final_logp"]),
            rank=int(record["rank"]),
            entropy=float(record["entropy"]),
            version=int(record["version"]),
            extras=dict(zip(self.started.columns, map(float, record["extras"]), strict=True)),
            top=_alternatives(record["top_ids"], record["top_logp"]),
            final=_alternatives(record["final_ids"], record["final_top_logp"]),
        )

    def changes_at(self, index: int) -> list[Change]:
        """Parameter changes whose first token is this one."""
        return [change for change in self.changes if change.index == index]

    # The competition.

    def hypotheses(self) -> list[Hypothesis]:
        """The live rows, best first, then the finished hypotheses, best first."""
        self._sync()
        settled = self._settled
        live = [
            self._hypothesis(leaf, row, self._parent_row(leaf), self._score(leaf), settled)
            for row, leaf in sorted(self._rows.leaf.items())
        ]
        ended = [self._hypothesis(e.leaf, e.row, e.row, e.score, settled, True) for e in self._ended]
        if self._ranked:
            live.sort(key=lambda h: -inf if isnan(h.score) else h.score, reverse=True)
        return live + sorted(ended, key=lambda h: h.score, reverse=True)

    def _hypothesis(
        self, leaf: int, row: int, parent: int, score: float, settled: int, finished: bool = False
    ) -> Hypothesis:
        tail = self._branch(leaf, settled)
        return Hypothesis(
            row=row,
            parent=parent,
            score=score,
            length=self._depth[leaf] + 1 if leaf >= 0 else 0,
            tokens=tuple(self._records["id"][tail].tolist()) if tail else (),
            text="".join(self._texts[i] for i in tail),
            finished=finished,
        )

    # Inside.

    def _dtype(self, extras: int) -> np.dtype[Any]:
        return self._np.dtype(
            [
                ("id", "i4"),
                ("raw_logp", "f4"),
                ("final_logp", "f4"),
                ("rank", "i4"),
                ("entropy", "f4"),
                ("version", "i4"),
                ("top_ids", "i4", (TOP,)),
                ("top_logp", "f4", (TOP,)),
                ("final_ids", "i4", (TOP,)),
                ("final_top_logp", "f4", (TOP,)),
                ("extras", "f4", (extras,)),
            ]
        )

    def _reserve(self, count: int) -> None:
        """Grows by an eighth: little slack, few copies."""
        if count > len(self._records):
            grown = self._np.empty(count + count // 8 + 256, self._records.dtype)
            grown[: self._count] = self._records[: self._count]
            self._records = grown

    def _append_single(self, batch: TokenBatch, count: int, n: int) -> None:
        numbers = range(count, count + n)
        self._parent.extend(range(count - 1, count + n - 1))
        self._row.extend([0] * n)
        self._depth.extend(numbers)
        self._path.extend(numbers)
        self._settled = len(self._path)

    def _append_rows(self, batch: TokenBatch, count: int) -> None:
        rows = self._rows
        columns = self.started.columns
        ended = columns.index(FINISHED) if FINISHED in columns else None
        ended_parent = columns.index(FINISHED_PARENT) if FINISHED_PARENT in columns else None
        for i, (step, row, parent) in enumerate(
            zip(batch.step.tolist(), batch.row.tolist(), batch.parent.tolist(), strict=True)
        ):
            if step != rows.step:
                rows.step, rows.before = step, dict(rows.leaf)
            root = rows.before.get(parent, self._kept - 1)
            self._parent.append(root)
            self._row.append(row)
            self._depth.append(self._depth[root] + 1 if root >= 0 else 0)
            rows.leaf[row] = count + i
            if ended is not None and not isnan(score := float(batch.extras[i, ended])):
                source = row if ended_parent is None else int(batch.extras[i, ended_parent])
                self._ended.append(_Ended(rows.before.get(source, self._kept - 1), source, score))
                self._ended.sort(key=lambda e: -e.score)
                del self._ended[self.started.rows :]
        self._stale = True

    def _keep(
        self,
        previous: Transcript | None,
        prefix: Sequence[int],
        decode: Callable[[Sequence[int]], list[str]] | None,
    ) -> None:
        """Takes over the tokens that a continued run kept."""
        if not prefix:
            return
        self._reserve(len(prefix))
        agreed = 0
        if previous is not None:
            ids = previous.ids(len(prefix))
            while agreed < len(ids) and ids[agreed] == prefix[agreed]:
                agreed += 1
            for name in ("id", "raw_logp", "final_logp", "rank", "entropy", "version"):
                self._records[name][:agreed] = previous.column(name, 0, agreed)
            at = previous._path[:agreed]
            for name in ("top_ids", "top_logp", "final_ids", "final_top_logp"):
                self._records[name][:agreed] = previous._records[name][at]
            self._records["extras"][:agreed] = nan
            if previous.started.columns == self.started.columns:
                self._records["extras"][:agreed] = previous._records["extras"][at]
            self._texts.extend(previous.texts(0, agreed))
            self.changes.extend(change for change in previous.changes if change.index < agreed)
        rest = prefix[agreed:]
        self._texts.extend(decode(rest) if decode is not None and rest else [""] * len(rest))
        for i, token in enumerate(rest, agreed):
            self._records[i] = self._unknown()
            self._records[i]["id"] = token
        if rest and previous is not None and agreed < len(previous):
            self._take_alternative(previous, agreed)
        self._count = len(prefix)
        numbers = range(self._count)
        self._parent.extend(range(-1, self._count - 1))
        self._row.extend([0] * self._count)
        self._depth.extend(numbers)
        self._path.extend(numbers)
        self._settled = self._count

    def _unknown(self) -> NDArray[Any]:
        record: NDArray[Any] = self._np.zeros((), self._records.dtype)
        for name in ("raw_logp", "final_logp", "entropy", "extras"):
            record[name] = nan
        record["rank"] = record["top_ids"] = record["final_ids"] = -1
        return record

    def _take_alternative(self, previous: Transcript, index: int) -> None:
        """The distribution at the branching point is known; only another token was taken from it."""
        old, new = previous._records[previous._path[index]], self._records[index]
        for name in ("entropy", "version", "top_ids", "top_logp", "final_ids", "final_top_logp"):
            new[name] = old[name]
        for ids, logps, target in (
            ("top_ids", "top_logp", "raw_logp"),
            ("final_ids", "final_top_logp", "final_logp"),
        ):
            found = self._np.flatnonzero(old[ids] == new["id"])
            if len(found):
                new[target] = old[logps][found[0]]
                if target == "raw_logp":
                    new["rank"] = found[0]

    def _score(self, leaf: int) -> float:
        if not self._ranked or leaf < self._kept:
            return nan
        return float(self._records[leaf]["extras"][self.started.columns.index(SCORE)])

    def _parent_row(self, leaf: int) -> int:
        parent = self._parent[leaf]
        return self._row[parent] if parent >= self._kept else self._row[leaf]

    def _front(self) -> int:
        """The record at the end of the row in front."""
        leaves = [leaf for _, leaf in sorted(self._rows.leaf.items())]
        if not self._ranked:
            return leaves[0]
        return max(leaves, key=lambda leaf: -inf if isnan(s := self._score(leaf)) else s)

    def _sync(self) -> None:
        """Follows the row in front. Done when somebody looks, not for each step."""
        if not self._stale:
            return
        self._stale = False
        self._walk(self._front())
        self._settled = self._common() if self._ranked else len(self._path)

    def _walk(self, leaf: int) -> None:
        """Makes the path end at `leaf`, keeping the part that is shared."""
        path, parent, depth = self._path, self._parent, self._depth
        fresh: list[int] = []
        at = leaf
        while at >= 0 and not (depth[at] < len(path) and path[depth[at]] == at):
            fresh.append(at)
            at = parent[at]
        keep = depth[at] + 1 if at >= 0 else 0
        if keep < len(path):
            self._cuts.append(keep)
            del path[keep:]
        path.extend(reversed(fresh))

    def _common(self) -> int:
        """Length of the prefix shared by everything that can still be the answer.

        A finished hypothesis that another finished one beats cannot.
        """
        contenders = set(self._rows.leaf.values())
        if self._ended:
            contenders.add(max(self._ended, key=lambda e: e.score).leaf)
        depth, parent = self._depth, self._parent
        level = min(depth[leaf] if leaf >= 0 else -1 for leaf in contenders)
        while len(contenders) > 1 or level < 0:
            if level < 0:
                return 0
            contenders = {self._ancestor(leaf, level) for leaf in contenders}
            if len(contenders) > 1:
                contenders = {parent[leaf] for leaf in contenders}
                level -= 1
        return level + 1

    def _ancestor(self, leaf: int, level: int) -> int:
        while self._depth[leaf] > level:
            leaf = self._parent[leaf]
        return leaf

    def _branch(self, leaf: int, start: int) -> list[int]:
        """Records from depth `start` to `leaf`."""
        branch: list[int] = []
        while leaf >= 0 and self._depth[leaf] >= start:
            branch.append(leaf)
            leaf = self._parent[leaf]
        branch.reverse()
        return branch

    def _find(self, answer: Sequence[int]) -> int | None:
        """The record at which the answer ends; its last token may be an unrecorded end-of-sequence."""
        for wanted in (tuple(answer), tuple(answer[:-1])):
            for leaf in range(self._count - 1, -1, -1):
                if self._depth[leaf] + 1 == len(wanted):
                    branch = self._branch(leaf, 0)
                    if tuple(self._records["id"][branch].tolist()) == wanted:
                        return leaf
        return None


def _alternatives(ids: NDArray[Any], logps: NDArray[Any]) -> tuple[Alternative, ...]:
    pairs = zip(ids.tolist(), logps.tolist(), strict=True)
    return tuple(Alternative(token, logp) for token, logp in pairs if token >= 0)
