"""Finds stories that say what an earlier one said: the same words, or too many of the same shingles."""

from __future__ import annotations

import hashlib
import re

_WORDS = 6
"""Words of a shingle."""
_OF = 4
"""One shingle in so many is kept, chosen by its hash: the same ones of every text."""
_SHARED = 0.25
"""Share of a story's kept shingles that earlier stories may have."""
_WORD = re.compile(r"[a-z']+")


class Duplicates:
    """Remembers what was added. A story counts as new if at most a quarter of it was said before.

    Eight bytes hash a shingle; a story of 200 words leaves some 50.
    """

    def __init__(self) -> None:
        self._texts: set[bytes] = set()
        self._shingles: set[int] = set()

    def add(self, text: str) -> bool:
        """Adds a story unless it repeats others; tells if it was added."""
        words = _WORD.findall(text.lower())
        digest = hashlib.blake2b(" ".join(words).encode(), digest_size=12).digest()
        if digest in self._texts:
            return False
        shingles = _kept_shingles(words)
        if shingles and len(shingles & self._shingles) > _SHARED * len(shingles):
            return False
        self._texts.add(digest)
        self._shingles |= shingles
        return True


def _kept_shingles(words: list[str]) -> set[int]:
    every = (" ".join(words[n : n + _WORDS]).encode() for n in range(len(words) - _WORDS + 1))
    hashes = (int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) for text in every)
    return {value for value in hashes if value % _OF == 0}
