"""Reads tokens out of the chunks of an OpenAI server and builds batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import TokenBatch
from edge_tui.engine.token_fields import TOKEN_FIELDS, TOP

if TYPE_CHECKING:
    from edge_tui.engine.remote.vocabulary import Vocabulary

Entry = tuple[str, float | None, dict[str, float]]
"""A token's text, its log-probability, and its alternatives' by text."""


@dataclass(frozen=True, slots=True)
class ChunkToken:
    """Holds one token as a chunk describes it.

    Attributes:
        id: Our number for its text.
        text: Characters that it adds.
        logp: Log-probability (nats); None where the server sends none.
        top: Alternatives by id with their log-probabilities, best first.
    """

    id: int
    text: str
    logp: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def build_batch(run: int, start: int, tokens: Sequence[ChunkToken]) -> TokenBatch:
    """Builds a batch of one row's tokens; fields that the server does not send have their empty value.

    Args:
        run: The run that they are part of.
        start: Index of the first of them.
        tokens: At least one.
    """
    import numpy as np

    n = len(tokens)
    columns: dict[str, Any] = {
        field.name: np.full((n, *field.shape(0)), field.empty, field.dtype)
        for field in TOKEN_FIELDS
        if field.kind != "candidates"
    }
    columns["step"] += np.arange(start, start + n, dtype=np.int32)
    for i, token in enumerate(tokens):
        columns["id"][i] = token.id
        if token.logp is not None:
            columns["raw_logp"][i] = token.logp
        for rank, (other, logp) in enumerate(token.top[:TOP]):
            columns["top_ids"][i, rank], columns["top_logp"][i, rank] = other, logp
            if other == token.id and columns["rank"][i] < 0:
                columns["rank"][i] = rank
    return TokenBatch(run=run, text=tuple(token.text for token in tokens), **columns)


def read_tokens(choice: Mapping[str, Any], vocabulary: Vocabulary) -> Iterator[ChunkToken]:
    """Yields a choice's tokens. Its log-probabilities say how many; without them a chunk counts as one.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is no choice of OpenAI's API.
    """
    delta = choice.get("delta") or {}
    text = choice.get("text") or f"{delta.get('reasoning_content') or ''}{delta.get('content') or ''}"
    logprobs = choice.get("logprobs") or {}
    entries = list(_chat_entries(logprobs) if logprobs.get("content") else _completion_entries(logprobs))
    if not entries:
        if text:
            yield ChunkToken(vocabulary.id_of(text), text)
        return
    texts = [token for token, _, _ in entries]
    if "".join(texts) != text:  # spelt otherwise: the last token gets all of it
        texts = [*[""] * (len(texts) - 1), text]
    for part, (token, logp, top) in zip(texts, entries, strict=True):
        others = sorted(top.items(), key=lambda item: -item[1])
        numbered = tuple((vocabulary.id_of(other), value) for other, value in others)
        yield ChunkToken(vocabulary.id_of(token), part, logp, numbered)


def _chat_entries(logprobs: Mapping[str, Any]) -> Iterator[Entry]:
    """Yields the entries of a chat: one object for each token."""
    for entry in logprobs["content"]:
        others = ((str(it["token"]), it.get("logprob")) for it in entry.get("top_logprobs") or ())
        yield str(entry["token"]), _finite(entry.get("logprob")), _finite_values(others)


def _completion_entries(logprobs: Mapping[str, Any]) -> Iterator[Entry]:
    """Yields the entries of a completion: lists side by side."""
    tokens = logprobs.get("tokens") or []
    logps = logprobs.get("token_logprobs") or [None] * len(tokens)
    tops = logprobs.get("top_logprobs") or [None] * len(tokens)
    for token, logp, top in zip(tokens, logps, tops, strict=False):
        yield str(token), _finite(logp), _finite_values((top or {}).items())


def _finite_values(pairs: Any) -> dict[str, float]:
    return {str(text): logp for text, value in pairs if (logp := _finite(value)) is not None}


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and isfinite(value) else None
