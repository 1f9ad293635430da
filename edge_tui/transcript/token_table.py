"""Stores tokens in columns, about 360 bytes each, and builds a view of one on demand."""

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

Column = Literal["id", "raw_logp", "final_logp", "rank", "entropy", "version"]

_FIELDS = token_fields("number", "alternatives", "extras")
"""Columns of the table; positions are the tree's, candidates have an array of their own."""
(_CANDIDATES,) = token_fields("candidates")


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
        self._candidates: NDArray[Any] | None = None
        """The extras of alternatives, float32 `[records, columns, 2, TOP]`; None without any."""
        self._table: NDArray[Any] = np.empty(
            0,
            [(each.name, each.dtype, each.shape(len(columns))) for each in _FIELDS],
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def nbytes(self) -> int:
        """Memory of the numbers."""
        return int(self._table.nbytes) + (self._candidates.nbytes if self._candidates is not None else 0)

    def extend(self, batch: TokenBatch) -> None:
        """Copies a batch."""
        fresh = self._grow(len(batch))
        for each in _FIELDS:
            fresh[each.name] = getattr(batch, each.name)
        if batch.candidates is not None:
            self._set_candidates(len(self), batch.candidates)
        # Tokens repeat; their texts need not.
        intern = self._interned.setdefault
        self.texts.extend(intern(text, text) for text in batch.text)

    def copy_records(self, other: TokenTable, numbers: Sequence[int]) -> None:
        """Copies records of another run; extras only where the columns are the same."""
        fresh = self._grow(len(numbers))
        source = other._table[list(numbers)]
        for each in _FIELDS:
            if each.kind != "extras":
                fresh[each.name] = source[each.name]
        same_columns = other.columns == self.columns
        fresh["extras"] = source["extras"] if same_columns else nan
        if same_columns and other._candidates is not None:
            self._set_candidates(len(self), other._candidates[list(numbers)])
        self.texts.extend(other.texts[number] for number in numbers)

    def add_unknown(self, token: int, text: str) -> None:
        """Adds a token of which nothing but its id is known."""
        fresh = self._grow(1)[0]
        for each in _FIELDS:
            fresh[each.name] = each.empty
        fresh["id"] = token
        self.texts.append(text)

    def add_alternative(self, other: TokenTable, number: int, token: int, text: str) -> None:
        """Adds a token that was taken instead of another one: the distribution it comes from is known."""
        self.add_unknown(token, text)
        old, new = other._table[number], self._table[len(self) - 1]
        for name in ("entropy", "version", "top_ids", "top_logp", "final_ids", "final_top_logp"):
            new[name] = old[name]
        rank = self._np.flatnonzero(old["top_ids"] == token)
        if len(rank):
            new["rank"], new["raw_logp"] = rank[0], old["top_logp"][rank[0]]
        place = self._np.flatnonzero(old["final_ids"] == token)
        if len(place):
            new["final_logp"] = old["final_top_logp"][place[0]]
        if other._candidates is not None and other.columns == self.columns:
            candidates = other._candidates[number]
            self._set_candidates(len(self) - 1, candidates[None])
            found = candidates[:, 0, rank[:1]] if len(rank) else candidates[:, 1, place[:1]]
            if found.size:
                new["extras"] = found[:, 0]

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
            **{each.name: record[each.name].item() for each in token_fields("number")},
        )

    def _alternatives(self, number: int, side: int) -> tuple[Alternative, ...]:
        """Reads the alternatives of a record: the model's own (0) or those of the final distribution (1)."""
        record = self._table[number]
        names = (("top_ids", "top_logp"), ("final_ids", "final_top_logp"))[side]
        ids, logps = (record[name].tolist() for name in names)
        columns: tuple[str, ...] = () if self._candidates is None else self.columns
        extras = [()] * len(ids) if self._candidates is None else self._candidates[number, :, side].T.tolist()
        return tuple(
            Alternative(token, logp, dict(zip(columns, own, strict=True)))
            for token, logp, own in zip(ids, logps, extras, strict=True)
            if token >= 0
        )

    def _set_candidates(self, first: int, candidates: NDArray[Any]) -> None:
        """Stores the extras of alternatives of the records from `first` on."""
        if self._candidates is None:
            self._candidates = self._new_candidates()
        self._candidates[first : first + len(candidates)] = candidates

    def batch(self, numbers: Sequence[int], run: int) -> TokenBatch:
        """Copies records to one row of a run, as `extend` takes them."""
        from edge_tui.engine.events import TokenBatch

        np = self._np
        indices = np.asarray(numbers, np.intp)
        chosen = self._table[indices]
        row = np.zeros(len(chosen), np.int32)
        return TokenBatch(
            run=run,
            step=np.arange(len(chosen), dtype=np.int32),
            row=row,
            parent=row,
            text=tuple(self.texts[number] for number in numbers),
            candidates=self._candidates[indices] if self._candidates is not None else None,
            **{each.name: chosen[each.name] for each in _FIELDS},
        )

    def _new_candidates(self, old: NDArray[Any] | None = None) -> NDArray[Any]:
        """Makes an array for the extras of alternatives of the whole table, beginning with the old one's."""
        shape = (len(self._table), *_CANDIDATES.shape(len(self.columns)))
        new = self._np.full(shape, nan, _CANDIDATES.dtype)
        if old is not None:
            new[: len(old)] = old
        return new

    def _grow(self, n: int) -> NDArray[Any]:
        """Adds `n` records and returns them. Grows by an eighth: little slack, few copies."""
        count = len(self)
        if count + n > len(self._table):
            grown = self._np.empty(count + n + count // 8 + 64, self._table.dtype)
            grown[:count] = self._table[:count]
            self._table = grown
            if self._candidates is not None:
                self._candidates = self._new_candidates(self._candidates[:count])
        fresh: NDArray[Any] = self._table[count : count + n]
        return fresh
