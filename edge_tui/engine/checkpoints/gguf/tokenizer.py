"""Makes a tokenizer from the vocabulary in a GGUF file's metadata.

Two kinds are read: byte-level BPE ("gpt2") with its merges and a named pre-tokenizer, and sentencepiece's BPE
("llama"), whose merges follow from the scores of its pieces.

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.gguf.pre_tokenizers import PRE_TOKENIZERS, PreTokenizer
from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint
from edge_tui.util import logs
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers import Tokenizer as FastTokenizer

    from edge_tui.engine.checkpoints.gguf.header import Header

_MODELS = ("gpt2", "llama")
_UNKNOWN, _CONTROL, _USER, _UNUSED = 2, 3, 4, 5
"""Types of tokens."""
_ROLES = ("bos", "eos", "unknown", "padding")
_ENDS = ("eos", "eot", "eom")
_NO_ID = 2**32 - 1
"""The id of a token that there is none of: llama.cpp's programs write -1 without a sign."""
_END_NAMES = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>"}
)
"""Control tokens that end a turn or a text, which older files give no role."""


_STRIP_NOTHING = ("<unk>", "<s>", "<|endoftext|>")
"""Control tokens of Phi-3 that take no spaces from the text behind them, as all its others do."""


class Vocabulary:
    """Reads the tokens of a GGUF file.

    Attributes:
        tokens: Pieces by id; None for the padding of an embedding, which no text becomes.
        types: Each token's type.
        strips: True if control tokens take the spaces behind them, which no metadata says of Phi-3's.

    Args:
        name: As the user named the model.
        header: The first file's.
        rows: Rows of the embedding.

    Raises:
        CheckpointError: there is no vocabulary, or its numbers do not fit it or the embedding.
    """

    def __init__(self, name: str, header: Header, rows: int) -> None:
        self._name, self._header = name, header
        tokens = header.read_array("tokenizer.ggml.tokens")
        types = header.read_array("tokenizer.ggml.token_type") or [1] * len(tokens)
        if not tokens or len(tokens) > rows or len(types) != len(tokens):
            raise IncompleteCheckpoint(
                f"{name} has {len(tokens):,} tokens, {len(types):,} types of them and {rows:,} embeddings; "
                "fetch it again."
            )
        self.tokens: list[str | None] = [str(token) for token in tokens]
        for i, kind in enumerate(types):
            if kind in (_UNKNOWN, _UNUSED) and tokens[i] == f"[PAD{i}]":
                self.tokens[i] = None
        self.types = types
        self._check_numbers(rows)
        self.strips = header.metadata.get("general.architecture") == "phi3" and self._model() == "llama"

    def ids(self) -> dict[str, int]:
        """Returns the id of each token."""
        return {token: i for i, token in enumerate(self.tokens) if token is not None}

    def fingerprint(self) -> str:
        """Returns a digest that two vocabularies share which give every id the same token."""
        text = "".join(f"{i} {token}\n" for i, token in enumerate(self.tokens) if token is not None)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def token(self, role: str) -> str | None:
        """Returns the token that has a role, "bos" or "eos"."""
        i = self._id(role)
        return None if i is None else self.tokens[i]

    def _id(self, role: str) -> int | None:
        key = f"tokenizer.ggml.{role}_token_id"
        if self._header.metadata.get(key) == _NO_ID:
            return None
        return self._number(key, 0, len(self.tokens) - 1, f"{len(self.tokens):,} tokens")

    def _number(self, key: str, least: int, most: int, reason: str) -> int | None:
        """Returns a whole number of the metadata, None if it states none.

        Raises:
            CheckpointError: it lies outside its bounds.
        """
        value = self._header.metadata.get(key)
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise CheckpointError(
            f"{self._name} cannot be loaded: its {one_line(key)[:60]} is {one_line(str(value))[:40]} and "
            f"must be from {least:,} to {most:,}, as there are {reason}; take another file."
        )

    def _check_numbers(self, rows: int) -> None:
        """Refuses numbers that do not fit the tokens.

        Raises:
            CheckpointError: there is one.
        """
        for role in dict.fromkeys((*_ROLES, *_ENDS)):
            self._id(role)
        count, key = len(self.tokens), f"{self._header.metadata.get('general.architecture')}.vocab_size"
        self._number(key, count, rows, f"{count:,} tokens and {rows:,} embeddings")

    def settings(self) -> dict[str, Any]:
        """Returns what tokenizer_config.json would say."""
        names = {"unknown": "unk", "padding": "pad"}
        roles = {f"{names.get(role, role)}_token": self.token(role) for role in _ROLES}
        add_bos = self._header.metadata.get("tokenizer.ggml.add_bos_token")
        if not isinstance(add_bos, bool):
            add_bos = self._model() == "llama" or self.pre_tokenizer().begin
        template = self._header.metadata.get("tokenizer.chat_template")
        return {
            **{role: token for role, token in roles.items() if token is not None},
            **({"bos_token": None} if roles["bos_token"] is None else {}),
            "add_bos_token": add_bos,
            "chat_template": template if isinstance(template, str) else None,
        }

    def end_ids(self) -> list[int]:
        """Returns every id that ends a text or a turn."""
        ids = [i for role in _ENDS if (i := self._id(role)) is not None]
        controls = (i for i, kind in enumerate(self.types) if kind == _CONTROL)
        named = [i for i in controls if self.tokens[i] in _END_NAMES]
        return list(dict.fromkeys([*ids, *named]))

    def check(self) -> None:
        """Refuses a tokenizer that is not read or lacks a part, without making it.

        Raises:
            CheckpointError: its model or its pre-tokenizer is unknown, or scores or merges are missing.
        """
        if self._model() != "gpt2":
            self._stored_scores()
            return
        self.pre_tokenizer()
        if "tokenizer.ggml.merges" not in self._header.metadata:
            raise IncompleteCheckpoint(f"{self._name} has no tokenizer.ggml.merges; fetch it again.")

    def tokenizer(self) -> FastTokenizer:
        """Makes the tokenizer.

        Raises:
            CheckpointError: its kind is not read, or it is broken.
        """
        make = _byte_level if self._model() == "gpt2" else _sentencepiece
        try:
            fast: FastTokenizer = make(self)
        except CheckpointError:
            raise
        except Exception as error:  # bare ones of the library
            raise CheckpointError(
                f"The tokenizer of {self._name} cannot be made ({logs.first_line(error)}); "
                "put the model's tokenizer.json beside the file."
            ) from error
        return fast

    def merges(self) -> list[tuple[str, str]]:
        """Returns the pairs that byte-level BPE joins, the first one first."""
        pairs = [str(merge).partition(" ") for merge in self._header.read_array("tokenizer.ggml.merges")]
        return [(left, right) for left, _, right in pairs]

    def scores(self) -> list[float]:
        """Returns the score of each sentencepiece token."""
        return [float(score) for score in self._stored_scores()]

    def _stored_scores(self) -> Sequence[str | float]:
        scores = self._header.read_array("tokenizer.ggml.scores")
        if len(scores) != len(self.tokens):
            raise IncompleteCheckpoint(
                f"{self._name} has {len(scores):,} scores for {len(self.tokens):,} tokens; fetch it again."
            )
        return scores

    def flag(self, key: str, default: bool) -> bool:
        """Returns a switch of the tokenizer."""
        value = self._header.metadata.get(f"tokenizer.ggml.{key}")
        return value if isinstance(value, bool) else default

    def _model(self) -> str:
        model = self._header.metadata.get("tokenizer.ggml.model")
        if model not in _MODELS:
            raise CheckpointError(
                f"The tokenizer of {self._name} is of the kind {one_line(str(model))[:40]!r}, and gpt2 and "
                "llama are read; take its safetensors checkpoint."
            )
        return str(model)

    def pre_tokenizer(self) -> PreTokenizer:
        """Returns how a text is split.

        Raises:
            CheckpointError: the file names a way that is not read.
        """
        stated = self._header.metadata.get("tokenizer.ggml.pre", "default")
        if (found := PRE_TOKENIZERS.get(str(stated))) is None:
            raise CheckpointError(
                f"{self._name} splits text by the pre-tokenizer {one_line(str(stated))[:40]!r}, which is not "
                "read; put the model's tokenizer.json beside the file."
            )
        return found


def _byte_level(vocabulary: Vocabulary) -> FastTokenizer:
    """Makes a byte-level BPE tokenizer."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    how = vocabulary.pre_tokenizer()
    fast = Tokenizer(
        models.BPE(vocabulary.ids(), vocabulary.merges(), fuse_unk=False, ignore_merges=how.whole_words)
    )
    if how.compose:
        fast.normalizer = normalizers.NFC()
    fast.pre_tokenizer = how.splitter()
    fast.decoder = decoders.ByteLevel()
    _add_tokens(fast, vocabulary)
    return fast


def _sentencepiece(vocabulary: Vocabulary) -> FastTokenizer:
    """Makes a sentencepiece tokenizer: BPE over characters, bytes where a character has no piece."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    ids, scores = vocabulary.ids(), vocabulary.scores()
    fast = Tokenizer(
        models.BPE(
            ids,
            list(_merges(ids, scores)),
            unk_token=vocabulary.token("unknown") or "<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = vocabulary.flag("add_space_prefix", default=True)
    spaces = normalizers.Replace(" ", "▁")
    fast.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces] if prefix else [spaces])
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    fast.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)] if prefix else parts)
    _add_tokens(fast, vocabulary)
    return fast


def _merges(ids: dict[str, int], scores: list[float]) -> Iterator[tuple[str, str]]:
    """Yields every pair of pieces that makes a piece, the best score first.

    sentencepiece joins the neighbours whose joint piece has the best score; of equal ones the first in the
    text. A rank for each pair says the same.
    """
    by_score = sorted(ids, key=lambda piece: (-scores[ids[piece]], ids[piece]))
    for piece in by_score:
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        yield from sorted(known, key=lambda pair: (ids[pair[0]], ids[pair[1]]))


def _add_tokens(fast: FastTokenizer, vocabulary: Vocabulary) -> None:
    """Marks the tokens that are found before any text is split."""
    from tokenizers import AddedToken

    named = {vocabulary.token("unknown")}
    found: dict[bool, list[Any]] = {True: [], False: []}
    for token, kind in zip(vocabulary.tokens, vocabulary.types, strict=True):
        if token and (kind in (_CONTROL, _USER, _UNKNOWN) or token in named):
            control = kind != _USER
            strips = vocabulary.strips and (control or token == "</s>") and token not in _STRIP_NOTHING
            found[control].append(AddedToken(token, normalized=False, special=control, rstrip=strips))
    fast.add_special_tokens(found[True])
    fast.add_tokens(found[False])
