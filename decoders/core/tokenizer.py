"""Defines what a strategy may ask of the model's tokenizer, on the host. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from weakref import WeakKeyDictionary


class Tokenizer(Protocol):
    """Encodes and decodes text for a strategy's `init`; never called in a step."""

    @property
    def size(self) -> int:
        """One more than the highest id. `Env.vocab`, the width of the logits, may be less or more."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Encodes a text as it stands behind another: no BOS, and no space put in front of it.

        A control token's name in it is text like any other; `named` has the tokens themselves.
        """

    def decode(self, ids: Sequence[int]) -> str:
        """Decodes a sequence; control tokens and unknown ids have no text."""

    def token_bytes(self) -> Sequence[bytes]:
        """Spells every id from 0 to `size` − 1 as UTF-8 bytes; b"" for control tokens and unused ids."""

    def named(self) -> Mapping[str, int]:
        """Maps the names of added tokens to their ids: "</think>", "<|im_end|>"."""


class ByteTokenizer:
    """Encodes each byte of UTF-8 as one token: the tokenizer of an `Env` that has no model, as in a test."""

    size = 256

    def encode(self, text: str) -> tuple[int, ...]:
        """Returns the bytes; lone surrogates become "?"."""
        return tuple(text.encode(errors="replace"))

    def decode(self, ids: Sequence[int]) -> str:
        """Reads bytes as text; a broken character becomes U+FFFD."""
        return bytes(i for i in ids if i in range(256)).decode(errors="replace")

    def token_bytes(self) -> Sequence[bytes]:
        """Returns each byte."""
        return [bytes([i]) for i in range(256)]

    def named(self) -> Mapping[str, int]:
        """Returns none: there are no added tokens."""
        return {}


def tokens_with(tokenizer: Tokenizer, marks: tuple[str, ...]) -> tuple[int, ...]:
    """Lists the tokens whose text holds one of some marks, found once for a tokenizer.

    To look through 152k tokens takes 0.1 s, and each run and each question would do it again.
    """
    known = _FOUND.setdefault(tokenizer, {})
    if marks not in known:
        parts = [mark.encode() for mark in marks]
        spelled = enumerate(tokenizer.token_bytes())
        known[marks] = tuple(i for i, text in spelled if any(part in text for part in parts))
    return known[marks]


_FOUND: WeakKeyDictionary[Tokenizer, dict[tuple[str, ...], tuple[int, ...]]] = WeakKeyDictionary()
