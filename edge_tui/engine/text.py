"""Between token ids and text: encoding, incremental decoding, stop strings.

Decoding single ids and joining the strings breaks every character that spans tokens. The two families of
tokenizer that nearly all checkpoints use are therefore decoded as *bytes*: each token stands for some
bytes, and an incremental UTF-8 decoder says which characters are certain.

* byte-level BPE (GPT-2, Llama 3, Qwen): each character of a token is one byte in GPT-2's alphabet;
* sentencepiece (Llama 2, Mistral, Gemma, Phi-3): "▁" is a space, `<0xE2>` is a byte.

Whatever else a tokenizer does is decoded by the tokenizer itself over a sliding window. Importing this
module loads no torch; slow-only tokenizers pull in transformers when one is opened.
"""

from __future__ import annotations

import codecs
import json
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoint import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tokenizers import Tokenizer

    from edge_tui.engine.checkpoint import Checkpoint

__all__ = ["Codec", "Detokenizer", "StopScanner"]

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_SEED = 16
"""Prompt tokens that a detokenizer reads to know whether the prompt ends inside a character."""
_ESCAPE = {0xDC00 + byte: f"⟨{byte:02X}⟩" for byte in range(0x80, 0x100)}
_REPLACE = dict.fromkeys(_ESCAPE, "\ufffd")


@lru_cache(maxsize=1)
def _alphabet() -> dict[str, int]:
    """GPT-2's bijection between characters and bytes: printable Latin-1 as is, the rest from U+0100 on."""
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
    byte = _BYTE_PIECE.fullmatch(piece)
    return bytes([int(byte[1], 16)]) if byte else piece.replace("▁", " ").encode()


@dataclass(frozen=True, slots=True)
class _Scheme:
    """How a tokenizer's pieces spell bytes.

    Attributes:
        spell: Bytes of one piece.
        errors: UTF-8 error handler: byte-level decoders replace a broken sequence by one U+FFFD, byte
            fallback replaces every broken byte.
        strip: What the decoder takes off the front of the text: "" nothing, "space" one space,
            "piece" every "▁" of the first piece.
        fallback: Whether whole characters end a run of bytes.
    """

    spell: Callable[[str], bytes]
    errors: str
    strip: str = ""
    fallback: bool = False


def _scheme(decoder: dict[str, Any] | None) -> _Scheme | None:
    """Reads the decoder section of tokenizer.json; None if it is neither of the two families."""
    if decoder is None:
        return None
    parts = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [part["type"] for part in parts if part["type"] != "Fuse"]
    if kinds == ["ByteLevel"]:
        return _Scheme(_byte_level, "replace")
    if kinds == ["Metaspace"] and parts[0].get("replacement") == "▁":
        never = parts[0].get("prepend_scheme", "always") == "never"
        return _Scheme(lambda piece: piece.replace("▁", " ").encode(), "replace", "" if never else "piece")
    spaces = {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}
    if kinds[:2] == ["Replace", "ByteFallback"] and parts[0] == spaces:
        if kinds[2:] == []:
            return _Scheme(_sentencepiece, "surrogateescape", fallback=True)
        if parts[-1] == {"type": "Strip", "content": " ", "start": 1, "stop": 0}:
            return _Scheme(_sentencepiece, "surrogateescape", "space", fallback=True)
    return None


def _decoder(tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The decoder section alone; serialising the whole tokenizer would take 0.1 s."""
    state = None if tokenizer.decoder is None else tokenizer.decoder.__getstate__()
    return None if state is None else dict(json.loads(state))


class Codec:
    """A checkpoint's tokenizer.

    Attributes:
        size: One more than the highest id the tokenizer knows; the logits may be wider (padding).
        special: Ids of control tokens, which have no text.
    """

    def __init__(self, tokenizer: Tokenizer, bos_id: int | None = None, add_bos: bool | None = None) -> None:
        """Wraps a tokenizer; its own truncation and padding are switched off, or prompts would lose text.

        Args:
            tokenizer: From tokenizer.json.
            bos_id: The beginning-of-sequence id, so that it is never put there twice.
            add_bos: Whether a raw text begins with it; None leaves that to the tokenizer.
        """
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._bos = bos_id
        self._add_bos = add_bos
        self._pieces = {i: piece for piece, i in tokenizer.get_vocab(with_added_tokens=True).items()}
        self.size = max(self._pieces, default=-1) + 1
        self.special = frozenset(i for i, t in tokenizer.get_added_tokens_decoder().items() if t.special)
        self._scheme = _scheme(_decoder(tokenizer))

    @classmethod
    def open(cls, checkpoint: Checkpoint) -> Codec:
        """Reads a checkpoint's tokenizer: tokenizer.json, or files that transformers converts to one.

        Raises:
            CheckpointError: there is no tokenizer, or it is broken.
        """
        from tokenizers import Tokenizer

        file = checkpoint.path / "tokenizer.json"
        add_bos = checkpoint.tokenizer_config.get("add_bos_token")
        bos = (checkpoint.bos_id, add_bos if isinstance(add_bos, bool) else None)
        if not file.exists():
            return cls(_converted(checkpoint), *bos)
        try:
            return cls(Tokenizer.from_file(str(file)), *bos)
        except Exception as error:  # the library raises bare Exception for anything wrong with the file
            raise CheckpointError(
                f"The tokenizer of {checkpoint.name} cannot be read ({error}); fetch tokenizer.json again."
            ) from error

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Ids of a text. Lone surrogates, which no tokenizer takes, become U+FFFD.

        Args:
            text: Any string.
            special: Add what the tokenizer adds to a raw text (BOS). False for text out of a chat template,
                which writes its own.
        """
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        special = special and self._add_bos is not False
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        if special and self._bos is not None:
            if self._add_bos and ids[:1] != [self._bos]:
                return [self._bos, *ids]
            if ids[:2] == [self._bos, self._bos]:
                return ids[1:]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a whole sequence as the tokenizer decodes it, without control tokens and unknown ids."""
        return self._tokenizer.decode([i for i in ids if i in self._pieces], skip_special_tokens=True)

    def token_bytes(self, token: int) -> bytes:
        """What one token spells, as bytes; empty for ids outside the vocabulary."""
        piece = self._pieces.get(token)
        if piece is None:
            return b""
        if self._scheme is None or token in self.special:
            return piece.encode()
        return self._scheme.spell(piece)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """Display text of single tokens, for lists of alternatives.

        Spaces are kept, control tokens show their name, bytes that make no character show as ⟨E2⟩, and ids
        outside the vocabulary are "".
        """
        return [
            self.token_bytes(token).decode("utf-8", "surrogateescape").translate(_ESCAPE) for token in ids
        ]

    def detokenizer(self, prompt_ids: Sequence[int] = ()) -> Detokenizer:
        """A decoder of what follows a prompt, whose last character may still be incomplete."""
        known = [i for i in prompt_ids if i in self._pieces and i not in self.special]
        stream: Detokenizer
        if self._scheme is None:
            stream = _Windowed(self)
        else:
            stream = _Bytewise(self, self._scheme, started=len(known) > _SEED)
        for token in known[-_SEED:]:
            stream.push(token)
        return stream


def _converted(checkpoint: Checkpoint) -> Tokenizer:
    """A tokenizer without tokenizer.json, through transformers' converter."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.path, local_files_only=True, trust_remote_code=False
        )
        backend: Tokenizer = tokenizer.backend_tokenizer
    except (
        Exception
    ) as error:  # each slow tokenizer raises its own kinds, ImportError of its library included
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(
            f"{checkpoint.name} has no tokenizer.json and its tokenizer cannot be converted ({reason}); "
            "save it once with transformers to get one."
        ) from error
    return backend


class Detokenizer(ABC):
    """Ids in, text out, one token at a time; a split character comes with the token that completes it."""

    @abstractmethod
    def push(self, token: int) -> str:
        """The text that this token makes certain; "" for control tokens and ids outside the vocabulary."""

    @abstractmethod
    def flush(self) -> str:
        """What is still held once no token follows: U+FFFD for a character that was never completed."""

    @abstractmethod
    def fork(self) -> Detokenizer:
        """An independent copy, for a beam that splits."""


class _Bytewise(Detokenizer):
    """Decodes the bytes that tokens spell."""

    def __init__(self, codec: Codec, scheme: _Scheme, started: bool) -> None:
        self._codec = codec
        self._scheme = scheme
        self._started = started
        """Whether some text came before, so that nothing is stripped from the front."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")(scheme.errors)

    def push(self, token: int) -> str:
        codec, scheme = self._codec, self._scheme
        piece = codec._pieces.get(token)
        if piece is None or token in codec.special:
            return ""
        spelt = scheme.spell(piece)
        if scheme.fallback and not _BYTE_PIECE.fullmatch(piece):
            text = self._utf8.decode(b"", final=True) + spelt.decode()
        else:
            text = self._utf8.decode(spelt)
        if not self._started:
            text = self._front(piece, text)
        return text.translate(_REPLACE) if scheme.fallback else text

    def _front(self, piece: str, text: str) -> str:
        if self._scheme.strip == "piece":
            self._started = True
            return piece.replace("▁", "")
        self._started = self._scheme.strip == "" or text != ""
        return text.removeprefix(" ") if self._scheme.strip else text

    def flush(self) -> str:
        text: str = self._utf8.decode(b"", final=True)
        return text.translate(_REPLACE)

    def fork(self) -> _Bytewise:
        twin = _Bytewise(self._codec, self._scheme, self._started)
        twin._utf8.setstate(self._utf8.getstate())
        return twin


class _Windowed(Detokenizer):
    """Decodes a short window twice, with and without the new tokens, and takes the difference."""

    _PATIENCE = 8
    """Tokens that may end in U+FFFD before it is taken for real."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._context: tuple[int, ...] = ()
        self._pending: tuple[int, ...] = ()

    def push(self, token: int) -> str:
        if token not in self._codec._pieces or token in self._codec.special:
            return ""
        self._pending += (token,)
        text = self._difference()
        if text.endswith("\ufffd") and len(self._pending) < self._PATIENCE:
            return ""
        return self._settle(text)

    def flush(self) -> str:
        return self._settle(self._difference())

    def fork(self) -> _Windowed:
        twin = _Windowed(self._codec)
        twin._context, twin._pending = self._context, self._pending
        return twin

    def _difference(self) -> str:
        before = self._codec.decode(self._context)
        return self._codec.decode(self._context + self._pending)[len(before) :]

    def _settle(self, text: str) -> str:
        if self._pending:
            self._context, self._pending = self._pending, ()
        return text


class StopScanner:
    """Finds stop strings in a stream of tokens and lets nothing of them through.

    Text that may still become a stop string is held back. The stop string that *ends* first wins, the
    longest one if several end together, so the result does not depend on how the text is cut into tokens.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held: list[tuple[int, str]] = []

    def push(self, index: int, text: str) -> tuple[list[tuple[int, str]], bool]:
        """Takes one token's text.

        Args:
            index: The token's index, given back with its text.
            text: May be empty.

        Returns:
            Tokens that can no longer be part of a stop string, in order, and whether one was found. Then the
            last token's text is cut before it, and tokens that lie wholly inside it are gone.
        """
        self._held.append((index, text))
        joined = "".join(piece for _, piece in self._held)
        found = [(at + len(stop), at) for stop in self._stops if (at := joined.find(stop)) >= 0]
        if found:
            return self._cut(min(found)[1]), True
        safe = len(joined) - self._undecided(joined)
        released, position = 0, 0
        for _, piece in self._held:
            position += len(piece)
            if position > safe:
                break
            released += 1
        out, self._held = self._held[:released], self._held[released:]
        return out, False

    def flush(self) -> list[tuple[int, str]]:
        """Gives back what was held, when the text has ended without a stop string."""
        out, self._held = self._held, []
        return out

    def fork(self) -> StopScanner:
        """An independent copy, for a beam that splits."""
        twin = StopScanner(self._stops)
        twin._held = list(self._held)
        return twin

    def _undecided(self, text: str) -> int:
        """Length of the longest end of `text` that some stop string begins with."""
        for n in range(min(self._longest - 1, len(text)), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self._stops):
                return n
        return 0

    def _cut(self, at: int) -> list[tuple[int, str]]:
        out: list[tuple[int, str]] = []
        position = 0
        for index, piece in self._held:
            if position >= at:
                break
            out.append((index, piece[: at - position]))
            position += len(piece)
        self._held = []
        return out
