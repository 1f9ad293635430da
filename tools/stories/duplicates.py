"""Finds stories that say what an earlier one said: the same words, or too many of the same shingles."""

from __future__ import annotations

import hashlib
import re

_WORDS = 6
"""Words of a shingle."""
_OF = 4
"""One shingle in so many is kept, chosen by its hash: the same ones of every text."""
_SHARED = 0.7
"""Share of a story's kept shingles that earlier stories may have: plots are told many times."""
_WORD = re.compile(r"[a-z']+")


class Duplicates:
    """Remembers what was added. A story counts as new unless too much of it was said before."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def add(self, hashes: frozenset[int]) -> bool:
        """Adds a story by its `fingerprint` unless it repeats others; tells if it was added."""
        if len(hashes & self._seen) > _SHARED * len(hashes):
            return False
        self._seen |= hashes
        return True


def fingerprint(text: str) -> frozenset[int]:
    """Returns hashes of eight bytes: of some 50 shingles of a story of 200 words, or of the whole story."""
    words = _WORD.findall(text.lower())
    every = (" ".join(words[n : n + _WORDS]) for n in range(len(words) - _WORDS + 1))
    kept = frozenset(value for shingle in every if (value := _hash(shingle)) % _OF == 0)
    return kept or frozenset((_hash(" ".join(words)),))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
