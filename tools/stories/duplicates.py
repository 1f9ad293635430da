"""Finds texts that say what earlier ones said: the same words, or too many of the same shingles.

Of a story this is what its writer wrote: the parts that are given are shared by design.
"""

from __future__ import annotations

import hashlib
import re

_WORDS = 9
"""Words of a shingle."""
_OF = 2
"""One shingle in so many is kept, chosen by its hash: the same ones of every text."""
_SHARED = 0.7
"""Share of a text's kept shingles that earlier ones may have."""
_WORD = re.compile(r"[a-z']+")


class Duplicates:
    """Remembers what was added. A text counts as new unless too much of it was said before."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, hashes: frozenset[int]) -> bool:
        """Adds a text by its `fingerprint` unless it repeats others; tells if it was added."""
        if len(hashes & self._seen) > _SHARED * len(hashes):
            return False
        self._seen |= hashes
        return True


def fingerprint(text: str) -> frozenset[int]:
    """Returns hashes of eight bytes: of every second shingle or so, or of the whole text if it has none."""
    words = _WORD.findall(text.lower())
    every = (" ".join(words[n : n + _WORDS]) for n in range(len(words) - _WORDS + 1))
    kept = frozenset(value for shingle in every if (value := _hash(shingle)) % _OF == 0)
    return kept or frozenset((_hash(" ".join(words)),))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
