"""Gives strategies the model's tokenizer as `decoders` knows it; what costs is computed once."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from edge_tui.engine.text.tokenizer import Tokenizer, whole_characters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ANCHORS = ("", "\n", ".", "0", "a")
"""Texts in front of which a tokenizer may put the space that a continuation must not have."""


class StrategyTokenizer:
    """Implements `edge_tui.decoders.base.Tokenizer` over a checkpoint's tokenizer.

    Args:
        tokenizer: The checkpoint's.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        """One more than the highest id that the tokenizer knows."""
        return self._tokenizer.size

    def encode(self, text: str) -> tuple[int, ...]:
        """Encodes a text as it stands behind another.

        Many tokenizers put a space in front of every text. So the text is encoded behind a short one, whose
        tokens are taken off again, and the first way in which the rest spells the text itself counts. A
        tokenizer that changes texts (lower case) spells none; there its plain encoding is the answer.
        """
        text = whole_characters(text)
        wanted = text.encode()
        for anchor in _ANCHORS:
            before = self._plain(anchor) if anchor else []
            ids = self._plain(anchor + text)
            rest = ids[len(before) :]
            if ids[: len(before)] == before and b"".join(map(self._spell, rest)) == wanted:
                return tuple(rest)
        return tuple(self._plain(text))

    def _plain(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, special=False, control=False)

    def decode(self, ids: Sequence[int]) -> str:
        """Decodes a sequence, without control tokens and unknown ids."""
        return self._tokenizer.decode(ids)

    def token_bytes(self) -> Sequence[bytes]:
        """Spells every id as bytes; b"" for control tokens and unused ids."""
        return self._bytes

    def named(self) -> Mapping[str, int]:
        """Maps the names of added tokens, control tokens among them, to their ids."""
        return self._named

    @cached_property
    def _bytes(self) -> tuple[bytes, ...]:
        return tuple(map(self._spell, range(self.size)))

    def _spell(self, token: int) -> bytes:
        """Spells one token as it stands behind another."""
        tokenizer = self._tokenizer
        if token in tokenizer.special:
            return b""
        if tokenizer.spells_bytes:
            return tokenizer.token_bytes(token)
        before = tokenizer.decode(self._before)
        return tokenizer.decode([*self._before, token])[len(before) :].encode()

    @cached_property
    def _before(self) -> list[int]:
        """Tokens of a word, which others follow."""
        return self._plain("a")

    @cached_property
    def _named(self) -> dict[str, int]:
        added = self._tokenizer.fast.get_added_tokens_decoder()
        return {token.content: i for i, token in added.items()} | self._tokenizer.control
