"""Stores a run's tokens in columns, about 390 bytes a token, and builds the record of one on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING, Literal

from edge_tui.engine.token_fields import token_fields

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    import numpy as np
    from numpy.typing import NDArray

    from edge_tui.engine.events import TokenBatch

Column = Literal["id", "raw_logp", "final_logp", "rank", "entropy", "margin", "candidate_count", "version"]

_FIELDS = token_fields("number", "alternatives", "extras", "candidates")
"""Columns of the table; positions are the tree's. Candidates are a column once a strategy reports them."""
_SIDES = (("top_ids", "top_logp"), ("final_ids", "final_top_logp"))
"""Columns of the alternatives under the model, and in the final distribution."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """Describes a token that could have come instead.

    Attributes:
        id: Token id.
        logp: Log-probability in nats.
        extras: The strategy's own columns by name, where it reports them for alternatives.
    """

    id: int
    logp: float
    extras: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenView:
    """Describes one token with everything that is known about it.

    Attributes:
        index: Position on the path.
        id: Token id.
        text: Raw text, not sanitised; "" while a character is incomplete.
        raw_logp: Under the model (nats); NaN where unknown.
        final_logp: In the distribution that was drawn from.
        rank: 0 is the model's most likely token; −1 where unknown.
        entropy: Of the model's distribution (nats).
        margin: Best sum of a logit and its luck less the second (nats), +inf where one token was left; NaN
            where it has no meaning or is not known.
        candidate_count: Tokens that the stages left; −1 where unknown.
        version: Of the parameter table.
        extras: The strategy's own columns by name.
        top: Most likely tokens under the model, best first.
        final: The same in the final distribution.
        removing_stage: The link that removed each of `top`, as a `TokenBatch` numbers them.
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
    margin: float = nan
    candidate_count: int = -1
    removing_stage: tuple[int, ...] = ()


class TokenTable:
    """Stores tokens in a growing table; a record's number is its place in the order of arrival.

    Args:
        columns: Names of the strategy's extra numbers.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        import numpy as np

        self.columns = columns
        self.texts: list[str] = []
        self._np = np
        self._interned: dict[str, str] = {}
        self._shapes = [(each.name, each.stored or each.dtype, each.shape(len(columns))) for each in _FIELDS]
        self._table: NDArray[Any] = np.empty(0, self._shapes[:-1])

    def __len__(self) -> int:
        return len(self.texts)

    def extend(self, batch: TokenBatch) -> None:
        """Copies a batch."""
        fresh = self._grow(len(batch), batch.candidates is not None)
        for name in _names(fresh):
            fresh[name] = nan if (column := getattr(batch, name)) is None else column
        # Tokens repeat; their texts need not.
        intern = self._interned.setdefault
        self.texts.extend(intern(text, text) for text in batch.text)

    def copy_records(self, other: TokenTable, numbers: Sequence[int]) -> None:
        """Copies records of another run; the strategy's numbers only where its columns are the same."""
        same = other.columns == self.columns
        source = other._table[list(numbers)]
        fresh = self._grow(len(numbers), same and "candidates" in _names(source))
        for name in _names(fresh):
            fresh[name] = source[name] if same or name != "extras" else nan
        self.texts.extend(other.texts[number] for number in numbers)

    def add_unknown(self, token: int, text: str, candidates: bool = False) -> Any:
        """Adds a token of which nothing but its id is known; returns its record."""
        fresh = self._grow(1, candidates)[0]
        for each in _FIELDS:
            if each.name in _names(fresh):
                fresh[each.name] = nan if each.kind == "candidates" else each.empty
        fresh["id"] = token
        self.texts.append(text)
        return fresh

    def add_alternative(self, other: TokenTable, number: int, token: int, text: str) -> None:
        """Adds a token that was taken instead of another one: the distribution it comes from is known."""
        old = other._table[number]
        has_candidates = other.columns == self.columns and "candidates" in _names(old)
        new = self.add_unknown(token, text, has_candidates)
        for name in ("entropy", "candidate_count", "version", "removing_stage", *_SIDES[0], *_SIDES[1]):
            new[name] = old[name]
        rank, place = (self._np.flatnonzero(old[ids] == token) for ids, _ in _SIDES)
        if len(rank):
            new["rank"], new["raw_logp"] = rank[0], old["top_logp"][rank[0]]
        if len(place):
            new["final_logp"] = old["final_top_logp"][place[0]]
        if has_candidates:
            new["candidates"] = candidates = old["candidates"]
            side, at = (0, rank) if len(rank) else (1, place)
            if len(at):
                new["extras"] = candidates[:, side, at[0]]

    def column(self, name: Column, numbers: Sequence[int]) -> NDArray[np.generic]:
        """Reads one number of each of the records: a fresh array `[len(numbers)]`."""
        chosen: NDArray[np.generic] = self._table[name][self._np.asarray(numbers, self._np.intp)]
        return chosen

    def ids(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Reads token ids of records."""
        return tuple(self.column("id", numbers).tolist())

    def text(self, numbers: Sequence[int]) -> str:
        """Joins the texts of records."""
        return "".join(self.texts[number] for number in numbers)

    def extra(self, name: str, number: int) -> float:
        """Reads one of the strategy's own numbers; NaN if it has no such column."""
        if name not in self.columns:
            return nan
        return float(self._table[number]["extras"][self.columns.index(name)])

    def view(self, number: int, index: int) -> TokenView:
        """Reads everything about one record, as position `index` of a path."""
        record = self._table[number]
        return TokenView(
            index=index,
            text=self.texts[number],
            extras=dict(zip(self.columns, record["extras"].tolist(), strict=True)),
            top=self._alternatives(number, 0),
            final=self._alternatives(number, 1),
            removing_stage=tuple(record["removing_stage"][record["top_ids"] >= 0].tolist()),
            **{each.name: record[each.name].item() for each in token_fields("number")},
        )

    def _alternatives(self, number: int, side: int) -> tuple[Alternative, ...]:
        """Reads the alternatives of a record: the model's own (0) or those of the final distribution (1)."""
        record = self._table[number]
        ids, logps = (record[name].tolist() for name in _SIDES[side])
        names: tuple[str, ...] = ()
        extras = [()] * len(ids)
        if "candidates" in _names(record):
            names, extras = self.columns, record["candidates"][:, side].T.tolist()
        return tuple(
            Alternative(token, logp, dict(zip(names, own, strict=True)))
            for token, logp, own in zip(ids, logps, extras, strict=True)
            if token >= 0
        )

    def batch(self, numbers: Sequence[int], run: int) -> TokenBatch:
        """Copies records to one row of a run, as `extend` takes them."""
        from edge_tui.engine.events import TokenBatch

        np = self._np
        chosen = self._table[np.asarray(numbers, np.intp)]
        row = np.zeros(len(chosen), np.int32)
        return TokenBatch(
            run=run,
            step=np.arange(len(chosen), dtype=np.int32),
            row=row,
            parent=row,
            text=tuple(self.texts[number] for number in numbers),
            **{
                each.name: chosen[each.name].astype(each.dtype, copy=False)
                for each in _FIELDS
                if each.name in _names(chosen)
            },
        )

    def _grow(self, n: int, candidates: bool = False) -> NDArray[Any]:
        """Adds `n` records and returns them. Grows by an eighth: little slack, few copies.

        Args:
            n: Their number.
            candidates: True where they have the column, which is NaN in records before them.
        """
        count, old = len(self), self._table
        widens = candidates and "candidates" not in _names(old)
        if widens or count + n > len(old):
            size = max(count + n + count // 8 + 64, len(old))
            self._table = self._np.empty(size, self._shapes if widens else old.dtype)
            for name in _names(old):
                self._table[name][:count] = old[name][:count]
            if widens:
                self._table["candidates"][:count] = nan
        return self._table[count : count + n]


def _names(records: NDArray[Any]) -> tuple[str, ...]:
    """Lists the columns of a table or of a record."""
    return records.dtype.names or ()
