"""Defines what a strategy that decides among rows is given at the end of a run, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Choice:
    """Holds one of several finished sequences, and its score."""

    tokens: tuple[int, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Records:
    """Holds a run's steps on the host, for `Decoder.finish`: lists indexed `[step][row]`."""

    tokens: Sequence[Sequence[int]]
    parents: Sequence[Sequence[int]]
    extras: Mapping[str, Sequence[Sequence[float]]]
    values: Mapping[str, float]

    def path(self, step: int, row: int) -> tuple[int, ...]:
        """Lists the tokens of the sequence that ends at `(step, row)`, by its parents back to the prompt."""
        tokens: list[int] = []
        for t in range(step, -1, -1):
            tokens.append(int(self.tokens[t][row]))
            row = int(self.parents[t][row])
        return tuple(reversed(tokens))
