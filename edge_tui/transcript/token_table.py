"""Tokens in columns: about 360 bytes each, whatever is known about them, and a view when one is looked at."""

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
    """A token that could have come instead.

    Attributes:
        id: Token id.
        logp: Log-probability in nats.
        extras: The strategy's own columns by name, where it tells them of alternatives.
    """

    id: int
    logp: float
    extras: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TokenView:
    """One token with everything that is known about it. Built when looked at.

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


class Records:
    """A growing table of tokens; a record's number is its place in the order of arrival.

    Args:
        columns: Names of the strategy's extra numbers.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        import numpy as np

        self.columns = columns
        self.texts: list[str] = []
        self._np = np
        self._known: dict[str, str] = {}
        self._told: NDArray[Any] | None = None
        """What the strategy tells of alternatives, float32 `[records, columns, 2, TOP]`; None if nothing."""
        self._table: NDArray[Any] = np.empty(
            0,
            [(each.name, each.dtype, each.shape(len(columns))) for each in _FIELDS],
        )

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def nbytes(self) -> int:
        """Memory of the numbers."""
        return int(self._table.nbytes) + (self._told.nbytes if self._told is not None else 0)

    def extend(self, batch: TokenBatch) -> None:
        """Copies a batch."""
        fresh = self._grow(len(batch))
        for each in _FIELDS:
            fresh[each.name] = getattr(batch, each.name)
        if batch.candidates is not None:
            self._tell(len(self), batch.candidates)
        # Tokens repeat; their texts need not.
        intern = self._known.setdefault
        self.texts.extend(intern(text, text) for text in batch.text)

    def take_over(self, other: Records, numbers: Sequence[int]) -> None:
        """Copies records of another run; its extras only where they mean the same."""
        fresh = self._grow(len(numbers))
        source = other._table[list(numbers)]
        for each in _FIELDS:
            if each.kind != "extras":
                fresh[each.name] = source[each.name]
        alike = other.columns == self.columns
        fresh["extras"] = source["extras"] if alike else nan
        if alike and other._told is not None:
            self._tell(len(self), other._told[list(numbers)])
        self.texts.extend(other.texts[number] for number in numbers)

    def add_unknown(self, token: int, text: str) -> None:
        """Adds a token of which nothing but its id is known."""
        fresh = self._grow(1)[0]
        for each in _FIELDS:
            fresh[each.name] = each.empty
        fresh["id"] = token
        self.texts.append(text)

    def add_alternative(self, other: Records, number: int, token: int, text: str) -> None:
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
        if other._told is not None and other.columns == self.columns:
            told = other._told[number]
            self._tell(len(self) - 1, told[None])
            found = told[:, 0, rank[:1]] if len(rank) else told[:, 1, place[:1]]
            if found.size:
                new["extras"] = found[:, 0]

    def column(self, name: Column, numbers: Sequence[int]) -> NDArray[np.generic]:
        """One number of each of the records: a fresh array `[len(numbers)]`."""
        chosen: NDArray[np.generic] = self._table[name][self._np.asarray(numbers, self._np.intp)]
        return chosen

    def ids(self, numbers: Sequence[int]) -> tuple[int, ...]:
        """Token ids of records."""
        return tuple(self.column("id", numbers).tolist())

    def extra(self, name: str, number: int) -> float:
        """One of the strategy's own numbers; NaN if it has no such column."""
        if name not in self.columns:
            return nan
        return float(self._table[number]["extras"][self.columns.index(name)])

    def view(self, number: int, index: int) -> TokenView:
        """Everything about one record, as position `index` of a path."""
        record = self._table[number]
        return TokenView(
            index=index,
            id=int(record["id"]),
            text=self.texts[number],
            raw_logp=float(record["raw_logp"]),
            final_logp=float(record["final_logp"]),
            rank=int(record["rank"]),
            entropy=float(record["entropy"]),
            version=int(record["version"]),
            extras=dict(zip(self.columns, record["extras"].tolist(), strict=True)),
            top=self._alternatives(number, 0),
            final=self._alternatives(number, 1),
        )

    def _alternatives(self, number: int, side: int) -> tuple[Alternative, ...]:
        """The alternatives of a record: the model's own (0) or those of the final distribution (1)."""
        record = self._table[number]
        names = (("top_ids", "top_logp"), ("final_ids", "final_top_logp"))[side]
        ids, logps = (record[name].tolist() for name in names)
        if self._told is None:
            return tuple(
                Alternative(token, logp) for token, logp in zip(ids, logps, strict=True) if token >= 0
            )
        told = self._told[number, :, side].T.tolist()
        return tuple(
            Alternative(token, logp, dict(zip(self.columns, own, strict=True)))
            for token, logp, own in zip(ids, logps, told, strict=True)
            if token >= 0
        )

    def _tell(self, first: int, told: NDArray[Any]) -> None:
        """Keeps what the strategy told of the alternatives of the records from `first` on."""
        if self._told is None:
            self._told = self._room()
        self._told[first : first + len(told)] = told

    def batch(self, numbers: Sequence[int], run: int) -> TokenBatch:
        """Records as one row of a run, as `extend` takes them."""
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
            candidates=self._told[np.asarray(numbers, np.intp)] if self._told is not None else None,
            **{each.name: chosen[each.name] for each in _FIELDS},
        )

    def _room(self, told: NDArray[Any] | None = None) -> NDArray[Any]:
        """A place for what is told of each record in the table, with what was told so far."""
        shape = (len(self._table), *_CANDIDATES.shape(len(self.columns)))
        room = self._np.full(shape, _CANDIDATES.empty, _CANDIDATES.dtype)
        if told is not None:
            room[: len(told)] = told
        return room

    def _grow(self, n: int) -> NDArray[Any]:
        """Room for `n` more. Grows by an eighth: little slack, few copies."""
        count = len(self)
        if count + n > len(self._table):
            grown = self._np.empty(count + n + count // 8 + 64, self._table.dtype)
            grown[:count] = self._table[:count]
            self._table = grown
            if self._told is not None:
                self._told = self._room(self._told[:count])
        fresh: NDArray[Any] = self._table[count : count + n]
        return fresh
