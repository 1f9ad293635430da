"""Converts tokens to bytes, for the two families of tokenizer that nearly all checkpoints use.

* byte-level BPE (GPT-2, Llama 3, Qwen): each character of a token is one byte in GPT-2's alphabet;
* sentencepiece (Llama 2, Mistral, Gemma, Phi-3): "▁" is a space, `<0xE2>` is a byte.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenizers import Tokenizer as FastTokenizer

__all__ = ["BYTE_PIECE", "Scheme", "scheme_of"]

BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


@lru_cache(maxsize=1)
def _alphabet() -> dict[str, int]:
    """Makes GPT-2's bijection of characters and bytes: printable Latin-1 as is, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in printable}
    rest = (byte for byte in range(0x100) if byte not in set(printable))
    return table | {chr(0x100 + n): byte for n, byte in enumerate(rest)}


def _byte_level(piece: str) -> bytes:
    alphabet = _alphabet()
    try:
        return bytes([alphabet[char] for char in piece])
    except KeyError:  # an added token, spelt as plain text
        return piece.encode()


def _sentencepiece(piece: str) -> bytes:
    byte = BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()


@dataclass(frozen=True, slots=True)
class Scheme:
    """Spells a tokenizer's pieces as bytes.

    Attributes:
        spell: Bytes of one piece.
        errors: UTF-8 error handler: byte-level decoders replace a broken sequence by one U+FFFD, byte
            fallback replaces every broken byte.
        strip: Rule for the front of the text: "" nothing, "space" one space,
            "piece" every "▁" of the first piece.
        fallback: True if whole characters end a run of bytes.
    """

    spell: Callable[[str], bytes]
    errors: str
    strip: str = ""
    fallback: bool = False


def _read(decoder: dict[str, Any] | None) -> Scheme | None:
    """Reads the decoder section of tokenizer.json; None if it is neither of the two families."""
    if decoder is None:
        return None
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [part["type"] for part in parts if part["type"] != "Fuse"]
    if kinds == ["ByteLevel"]:
        return Scheme(_byte_level, "replace")
    if kinds == ["Metaspace"] and parts[0].get("replacement") == "▁":
        never = parts[0].get("prepend_scheme", "always") == "never"
        return Scheme(lambda piece: piece.replace("▁", " ").encode(), "replace", "" if never else "piece")
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    if kinds[:2] == ["Replace", "ByteFallback"] and parts[0] == spaces:
        if kinds[2:] == []:
            return Scheme(_sentencepiece, "surrogateescape", fallback=True)
        if parts[-1] == {"type": "Strip", "content": " ", "start": 1, "stop": 0}:
            return Scheme(_sentencepiece, "surrogateescape", "space", fallback=True)
    return None


def scheme_of(fast: FastTokenizer) -> Scheme | None:
    """Returns how a tokenizer's pieces spell bytes; None if it is neither of the two families."""
    # The decoder section alone: serialising the whole tokenizer would take 0.1 s.
    state = None if fast.decoder is None else fast.decoder.__getstate__()
    return _read(None if state is None else dict(json.loads(state)))
