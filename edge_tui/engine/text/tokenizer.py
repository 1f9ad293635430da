"""Encodes text as token ids, and decodes ids one at a time.

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
import re
from collections import Counter
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.weight_files import CheckpointError
from edge_tui.engine.text.control_tokens import ControlTokenMask, PlainTokenizer, any_of, role_tokens
from edge_tui.engine.text.token_bytes import BYTE_PIECE, Scheme, scheme_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tokenizers import Tokenizer as FastTokenizer

    from edge_tui.engine.checkpoints.source import CheckpointSource

__all__ = ["Detokenizer", "Tokenizer"]

_SEED = 16
"""Prompt tokens that a detokenizer reads to know whether the prompt ends inside a character."""
_ESCAPE = {0xDC00 + byte: f"⟨{byte:02X}⟩" for byte in range(0x80, 0x100)}
_REPLACE = dict.fromkeys(_ESCAPE, "\ufffd")


class Tokenizer:
    """Encodes and decodes with a checkpoint's tokenizer.

    Attributes:
        fast: The tokenizers library's.
        size: One more than the highest id the tokenizer knows; the logits may be wider (padding).
        bos_id: The beginning-of-sequence id, if there is one.
        end_ids: Ids that end a sequence, ascending; one may be an ordinary piece of text.
        special: Ids of control tokens, which have no text.
        control: Names of the control tokens, and their ids.
    """

    def __init__(
        self,
        fast: FastTokenizer,
        bos_id: int | None = None,
        add_bos: bool | None = None,
        end_ids: Iterable[int] = (),
        roles: frozenset[str] = frozenset(),
    ) -> None:
        """Wraps a tokenizer; its own truncation and padding are switched off, or prompts would lose text.

        Args:
            fast: The tokenizers library's, from tokenizer.json.
            bos_id: The beginning-of-sequence id, so that it is never put there twice.
            add_bos: True if a raw text begins with it; None leaves that to the tokenizer.
            end_ids: Ids that end a sequence; those that the tokenizer does not know are left out.
            roles: Tokens that the checkpoint calls special by their role, whatever the tokenizer's flags.
        """
        fast.no_truncation()
        fast.no_padding()
        self.fast = fast
        self._add_bos = add_bos
        self._pieces = {i: piece for piece, i in fast.get_vocab(with_added_tokens=True).items()}
        self.bos_id = bos_id if bos_id in self._pieces else None
        self.size = max(self._pieces, default=-1) + 1
        self.end_ids = tuple(sorted({i for i in end_ids if i in self._pieces}))
        added = fast.get_added_tokens_decoder()
        # A checkpoint may flag its end token as ordinary; a line break with a role still is text.
        self.control = {
            token.content: i
            for i, token in added.items()
            if token.special
            or (token.content.strip() and (token.content in roles or i == bos_id or i in self.end_ids))
        }
        self.special = frozenset(self.control.values())
        self._added = tuple(token.content for token in added.values())
        # A normalizer can make a control token's name out of other text.
        self._normalizes = fast.normalizer is not None and any(added[i].normalized for i in self.special)
        self._scheme = scheme_of(fast)

    @classmethod
    def open(cls, source: CheckpointSource) -> Tokenizer:
        """Reads a checkpoint's tokenizer.

        Raises:
            CheckpointError: there is no tokenizer, or it is broken.
        """
        fast = source.read_tokenizer()
        add_bos = source.tokenizer_config.get("add_bos_token")
        # The token by its name may be an ordinary piece, which no table of added tokens lists.
        end = fast.token_to_id(source.eos_token) if source.eos_token else None
        return cls(
            fast,
            source.bos_id,
            add_bos if isinstance(add_bos, bool) else None,
            (*source.eos_ids, *(() if end is None else (end,))),
            role_tokens(source.tokenizer_config),
        )

    def encode(self, text: str, special: bool = True, control: bool = True) -> list[int]:
        """Encodes a text. Lone surrogates, which no tokenizer takes, become U+FFFD.

        Args:
            text: Any string.
            special: Add what the tokenizer adds to a raw text (BOS). False for text out of a chat template,
                which writes its own.
            control: True if a control token's name in it is that token; else it is text like any other.

        Raises:
            CheckpointError: the tokenizer cannot take such a name as text.
        """
        text = whole_characters(text)
        special = special and self._add_bos is not False
        ids: list[int]
        if not control and self.control_in([text]):
            ids = self._plain.encode(text, special)
        else:
            ids = self.fast.encode(text, add_special_tokens=special).ids
        if special and self.bos_id is not None:
            if self._add_bos and ids[:1] != [self.bos_id]:
                return [self.bos_id, *ids]
            if ids[:2] == [self.bos_id, self.bos_id]:
                return ids[1:]
        return ids

    def encode_rendered(self, text: str, masked: ControlTokenMask) -> list[int]:
        """Encodes a rendered conversation; control tokens' names that users wrote are text.

        Args:
            text: As the template wrote it from `masked` contents.
            masked: The marks that stand for control tokens' names.

        Raises:
            CheckpointError: the tokenizer cannot take such a name as text.
        """
        return self._plain.encode_rendered(whole_characters(text), any_of(self._added), masked.marks)

    def spans(
        self, parts: Iterable[str], masked: ControlTokenMask | None = None, control: bool = True
    ) -> tuple[list[str], list[int], list[tuple[int, int]]]:
        """Encodes a text that is given in parts, and finds the place of each token; adds no BOS.

        Args:
            parts: The text. A conversation's is rendered from `masked` contents, if there are any.
            masked: The marks that stand for control tokens' names.
            control: As in `encode`.

        Returns:
            The parts as they are read, the ids, and each token's first character and end in the joined parts.
        """
        texts = list(map(whole_characters, parts))
        if masked is not None:
            words = any_of(self._added)
            texts = [self._plain.rename(text, words, masked.marks) for text in texts]
        if masked is not None or (not control and self.control_in(["".join(texts)])):
            return texts, *self._plain.spans("".join(texts))
        encoding = self.fast.encode("".join(texts), add_special_tokens=False)
        return texts, encoding.ids, encoding.offsets

    def mask(self, values: Iterable[object], source: str) -> ControlTokenMask:
        """Hides control tokens' names in what users wrote from a chat template with that source.

        Raises:
            CheckpointError: nothing is left to hide them behind.
        """
        try:
            return ControlTokenMask(self._words, values, source)
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    def control_in(self, texts: Iterable[str]) -> Counter[str]:
        """Returns how often each control token would be read out of the texts."""
        texts = list(map(whole_characters, texts))
        found = Counter(word for text in texts for word in self._words.findall(text))
        if self._normalizes:
            ids = [i for text in texts for i in self.fast.encode(text, add_special_tokens=False).ids]
            found |= Counter(self._pieces[i] for i in ids if i in self.special)
        return found

    @property
    def reads_names(self) -> bool:
        """True once control tokens' names can be encoded as text at once; the first time takes seconds."""
        return "_plain" in self.__dict__

    def prepare_names(self) -> None:
        """Makes ready for names as text. A tokenizer that cannot will say so when it is to encode one."""
        with suppress(CheckpointError):
            _ = self._plain

    @cached_property
    def _words(self) -> re.Pattern[str]:
        return any_of(self.control)

    @cached_property
    def _plain(self) -> PlainTokenizer:
        try:
            return PlainTokenizer(self.fast, self.control)
        except ValueError as error:
            raise CheckpointError(
                f"The tokenizer cannot read control tokens as text ({error}); "
                "take them out of the prompt, or allow them with control_tokens."
            ) from error

    def decode(self, ids: Sequence[int]) -> str:
        """Decodes a whole sequence as the tokenizer does, without control tokens and unknown ids."""
        known = [i for i in ids if i in self._pieces and i not in self.special]
        return self.fast.decode(known, skip_special_tokens=True)

    def answer(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> str:
        """Decodes an answer that follows a prompt, without the token that ends it."""
        stream = self.detokenizer(prompt_ids)
        return "".join(stream.push(i) for i in ids if i not in self.end_ids) + stream.flush()

    def texts(self, prompt_ids: Sequence[int], ids: Sequence[int]) -> tuple[str, ...]:
        """Decodes single tokens that follow a prompt: a character comes with the token that completes it."""
        stream = self.detokenizer(prompt_ids)
        return tuple(stream.push(i) for i in ids)

    def token_bytes(self, token: int) -> bytes:
        """Spells one token as bytes; empty for ids outside the vocabulary."""
        piece = self._pieces.get(token)
        if piece is None:
            return b""
        if self._scheme is None or token in self.special:
            return piece.encode()
        return self._scheme.spell(piece)

    @property
    def spells_bytes(self) -> bool:
        """True where each token stands for bytes of its own, whatever comes before it."""
        return self._scheme is not None

    def token_strings(self, ids: Iterable[int]) -> list[str]:
        """Returns the display text of single tokens, for lists of alternatives.

        Spaces are kept, control tokens show their name, bytes that make no character show as ⟨E2⟩, and ids
        outside the vocabulary are "".
        """
        return [
            self.token_bytes(token).decode("utf-8", "surrogateescape").translate(_ESCAPE) for token in ids
        ]

    def detokenizer(self, prompt_ids: Sequence[int] = ()) -> Detokenizer:
        """Makes a decoder of what follows a prompt, whose last character may still be incomplete."""
        known = [i for i in prompt_ids if i in self._pieces and i not in self.special]
        stream = (
            _Windowed(self)
            if self._scheme is None
            else _Bytewise(self, self._scheme, started=len(known) > _SEED)
        )
        for token in known[-_SEED:]:
            stream.push(token)
        return stream


def whole_characters(text: str) -> str:
    """Replaces lone surrogates by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class _Bytewise:
    """Decodes the bytes that tokens spell, one id at a time."""

    def __init__(self, tokenizer: Tokenizer, scheme: Scheme, started: bool) -> None:
        self._tokenizer = tokenizer
        self._scheme = scheme
        self._started = started
        """True if some text came before, so that nothing is stripped from the front."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")(scheme.errors)

    def push(self, token: int) -> str:
        """Returns the text that this token makes certain; "" for control tokens and unknown ids."""
        tokenizer, scheme = self._tokenizer, self._scheme
        piece = tokenizer._pieces.get(token)
        if piece is None or token in tokenizer.special:
            return ""
        as_bytes = scheme.spell(piece)
        if scheme.fallback and not BYTE_PIECE.fullmatch(piece):
            text = self._utf8.decode(b"", final=True) + as_bytes.decode()
        else:
            text = self._utf8.decode(as_bytes)
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
        """Returns the rest once no token follows: U+FFFD for a character that was never completed."""
        text: str = self._utf8.decode(b"", final=True)
        return text.translate(_REPLACE)

    def fork(self) -> _Bytewise:
        """Makes an independent copy, for a beam that splits."""
        copy = _Bytewise(self._tokenizer, self._scheme, self._started)
        copy._utf8.setstate(self._utf8.getstate())
        return copy


class _Windowed:
    """Decodes a short window twice, with and without the new token, and takes the difference."""

    _PATIENCE = 8
    """Tokens that may end in U+FFFD before it is taken for real."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._context: tuple[int, ...] = ()
        self._pending: tuple[int, ...] = ()

    def push(self, token: int) -> str:
        """Does `_Bytewise.push`."""
        if token not in self._tokenizer._pieces or token in self._tokenizer.special:
            return ""
        self._pending += (token,)
        text = self._difference()
        if text.endswith("\ufffd") and len(self._pending) < self._PATIENCE:
            return ""
        return self._settle(text)

    def flush(self) -> str:
        """Does `_Bytewise.flush`."""
        return self._settle(self._difference())

    def fork(self) -> _Windowed:
        """Makes an independent copy."""
        copy = _Windowed(self._tokenizer)
        copy._context, copy._pending = self._context, self._pending
        return copy

    def _difference(self) -> str:
        before = self._tokenizer.decode(self._context)
        return self._tokenizer.decode(self._context + self._pending)[len(before) :]

    def _settle(self, text: str) -> str:
        if self._pending:
            self._context, self._pending = self._pending, ()
        return text


Detokenizer = _Bytewise | _Windowed
"""Decodes ids one at a time; a split character comes with the token that completes it."""
