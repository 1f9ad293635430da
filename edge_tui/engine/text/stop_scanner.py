"""Finds stop strings in a stream of tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["StopScanner"]

_SYMBOLS = 0xD800
"""First of the lone surrogates, which no decoded text has: each stands for a control token."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """Holds one token's part of the text.

    Attributes:
        index: The token's index.
        text: Its characters.
        marked: The same, or the symbol of a control token.
        shown: True if its characters are part of the answer.
    """

    index: int
    text: str
    symbolic: str
    shown: bool

    def before(self, length: int) -> tuple[int, str]:
        """Returns its index, and so many of its characters as far as they are shown."""
        return self.index, self.text[:length] if self.shown else ""


class StopScanner:
    """Finds stop strings in a stream of tokens and lets nothing of them through.

    Text that may still become a stop string is held back. The stop string that *ends* first wins, the
    longest one if several end together, so the result does not depend on how the text is cut into tokens.
    A control token has no characters, so a stop string that holds its name is looked for twice: as these
    characters, and with the token in their place.

    Args:
        stops: Stop strings; empty ones are ignored.
        control: Names of control tokens, and their ids.
    """

    def __init__(self, stops: Iterable[str], control: Mapping[str, int] | None = None) -> None:
        control = control or {}
        self._stops = tuple(stop for stop in stops if stop)
        names = sorted((name for name in control if any(name in stop for stop in self._stops)), key=len)
        symbols = {name: chr(_SYMBOLS + n) for n, name in enumerate(reversed(names))}
        words = re.compile("|".join(map(re.escape, symbols)) or r"(?!)")
        symbolic = (words.sub(lambda match: symbols[match[0]], stop) for stop in self._stops)
        self._symbolic = tuple(
            stop for stop, plain in zip(symbolic, self._stops, strict=True) if stop != plain
        )
        self._symbols = {control[name]: symbol for name, symbol in symbols.items()}
        self._pending: list[_Piece] = []

    def push(
        self, index: int, text: str, token: int = -1, shown: bool = True
    ) -> tuple[list[tuple[int, str]], bool]:
        """Takes one token's text.

        Args:
            index: The token's index, given back with its text.
            text: May be empty.
            token: The token's id.
            shown: True if the text is part of the answer; an end token's is not, though it may stop.

        Returns:
            Tokens that can no longer be part of a stop string, in order, and whether one was found. Then the
            last token's text is cut before it, and tokens that lie wholly inside it are gone.
        """
        self._pending.append(_Piece(index, text, self._symbols.get(token, text), shown))
        plain = [piece.text for piece in self._pending]
        symbolic = [piece.symbolic for piece in self._pending] if self._symbolic else []
        matches = [*_matches(plain, self._stops), *_matches(symbolic, self._symbolic)]
        if matches:
            (*_, first, offset) = min(matches)
            before, piece, self._pending = self._pending[:first], self._pending[first], []
            while not offset and before and not before[-1].text:
                before.pop()  # the first bytes of a character that the stop string begins with
            out = [piece.before(len(piece.text)) for piece in before]
            return [*out, piece.before(offset)] if offset else out, True
        released = min(
            _decided(plain, self._stops), _decided(symbolic, self._symbolic) if symbolic else len(plain)
        )
        ready, self._pending = self._pending[:released], self._pending[released:]
        return [piece.before(len(piece.text)) for piece in ready], False

    def flush(self) -> list[tuple[int, str]]:
        """Gives back what was held, when the text has ended without a stop string."""
        rest, self._pending = self._pending, []
        return [piece.before(len(piece.text)) for piece in rest]


def _matches(pieces: list[str], stops: tuple[str, ...]) -> list[tuple[int, int, int, int]]:
    """Finds each stop string's end and beginning: the piece and the offset in it, of the end first."""
    joined = "".join(pieces)
    return [
        (*_place(pieces, at + len(stop) - 1), *_place(pieces, at))
        for stop in stops
        if (at := joined.find(stop)) >= 0
    ]


def _place(pieces: list[str], position: int) -> tuple[int, int]:
    """Finds the piece that holds a character of the joined text, and the character's offset in it."""
    for number, piece in enumerate(pieces):
        if position < len(piece):
            return number, position
        position -= len(piece)
    raise IndexError(position)


def _decided(pieces: list[str], stops: tuple[str, ...]) -> int:
    """Counts the leading pieces that cannot be part of a stop string whatever follows."""
    joined = "".join(pieces)
    safe = len(joined) - _undecided(joined, stops)
    position = 0
    for number, piece in enumerate(pieces):
        position += len(piece)
        if position > safe:
            return number
    return len(pieces)


def _undecided(text: str, stops: tuple[str, ...]) -> int:
    """Measures the longest end of `text` that some stop string begins with."""
    longest = max(map(len, stops), default=0)
    for n in range(min(longest - 1, len(text)), 0, -1):
        if any(stop.startswith(text[-n:]) for stop in stops):
            return n
    return 0
