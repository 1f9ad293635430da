"""Columns of tokens out of what servers tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite, nan
from typing import Any

from edge_tui.engine.events import TOP, TokenBatch

_INTS = ("step", "row", "parent", "id", "rank", "version")
_FLOATS = ("raw_logp", "final_logp", "entropy")
_TABLES = {"top_ids": True, "top_logp": False, "final_ids": True, "final_top_logp": False}
"""Columns of `TOP` entries a token: whether they are ids."""


@dataclass(frozen=True, slots=True)
class Said:
    """One token as a server of somebody else tells it.

    Attributes:
        id: A number for its text.
        text: Characters that it adds.
        logp: Log-probability (nats); None where it is not told.
        top: Alternatives by id with their log-probabilities, best first.
    """

    id: int
    text: str
    logp: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def of_columns(run: int, told: Mapping[str, Any], extras: int) -> TokenBatch:
    """A batch as a server of ours tells it, column by column.

    Args:
        run: The run that it is part of.
        told: The columns.
        extras: How many numbers of the strategy's own each token has.

    Raises:
        KeyError, TypeError, ValueError: it is no such batch.
    """
    import numpy as np

    n = len(told["text"])
    columns: dict[str, Any] = {name: np.array(told[name], np.int32).reshape(n) for name in _INTS}
    columns |= {name: _floats(told[name]).reshape(n) for name in _FLOATS}
    for name, ids in _TABLES.items():
        table = np.array(told[name], np.int32) if ids else _floats(told[name], -inf)
        columns[name] = table.reshape(n, TOP)
    columns["extras"] = _floats(told["extras"]).reshape(n, extras)
    if told.get("candidates") is not None:
        columns["candidates"] = _floats(told["candidates"], -inf).reshape(n, extras, 2, TOP)
    return TokenBatch(run=run, text=tuple(map(str, told["text"])), **columns)


def of_tokens(run: int, start: int, tokens: Sequence[Said]) -> TokenBatch:
    """A batch of one row's tokens, of which little is known; what is not known is NaN, or −1.

    Args:
        run: The run that they are part of.
        start: Index of the first of them.
        tokens: At least one.
    """
    import numpy as np

    n = len(tokens)
    top_ids = np.full((n, TOP), -1, np.int32)
    top_logp = np.full((n, TOP), -np.inf, np.float32)
    rank = np.full(n, -1, np.int32)
    for i, token in enumerate(tokens):
        for place, (other, logp) in enumerate(token.top[:TOP]):
            top_ids[i, place], top_logp[i, place] = other, logp
            if other == token.id and rank[i] < 0:
                rank[i] = place
    zeros = np.zeros(n, np.int32)
    unknown = np.full(n, nan, np.float32)
    return TokenBatch(
        run=run,
        step=np.arange(start, start + n, dtype=np.int32),
        row=zeros,
        parent=zeros,
        id=np.array([token.id for token in tokens], np.int32),
        raw_logp=np.array([nan if token.logp is None else token.logp for token in tokens], np.float32),
        final_logp=unknown,
        rank=rank,
        entropy=unknown,
        version=zeros,
        top_ids=top_ids,
        top_logp=top_logp,
        final_ids=np.full((n, TOP), -1, np.int32),
        final_top_logp=np.full((n, TOP), -np.inf, np.float32),
        extras=np.zeros((n, 0), np.float32),
        text=tuple(token.text for token in tokens),
    )


def number(value: Any) -> float | None:
    """A finite number, or None."""
    return float(value) if isinstance(value, int | float) and isfinite(value) else None


def _floats(values: Any, missing: float = nan) -> Any:
    """float32, with `missing` in place of null, which stands for a number that JSON does not know."""
    import numpy as np

    table = np.array(values, dtype=object)
    return np.where(table == None, missing, table).astype(np.float32)  # noqa: E711 — elementwise
