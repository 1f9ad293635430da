"""Sums up how surprised a model was by a text: nats, perplexity, bits per byte."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isnan, log, nan
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from edge_tui.engine.events import PromptRead

TURNS = ("user", "system", "assistant")
"""Roles of tokens that no template wrote."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """Holds the surprise of some tokens. The first token of a text counts only where a BOS comes before it.

    Attributes:
        tokens: Number of tokens that were scored.
        nats: Sum of −log p over them.
        bytes: Length of their text in UTF-8.
    """

    tokens: int
    nats: float
    bytes: int

    @property
    def perplexity(self) -> float:
        """`exp` of the mean of −log p over the tokens; NaN without tokens."""
        return exp(self.nats / self.tokens) if self.tokens else nan

    @property
    def bits_per_byte(self) -> float:
        """Sum of −log₂ p over the length in bytes, which texts of other tokenizers compare by; else NaN."""
        return self.nats / log(2) / self.bytes if self.bytes else nan


def score(read: PromptRead, roles: Collection[str] = TURNS) -> TextScore:
    """Sums up the tokens of some roles; all tokens where the roles are not known."""
    count, nats, size = 0, 0.0, 0
    columns = zip(read.logp.tolist(), read.text, read.roles or ("user",) * len(read.ids), strict=True)
    for logp, text, role in columns:
        if role in roles and not isnan(logp):
            count, nats, size = count + 1, nats - logp, size + len(text.encode("utf-8", "replace"))
    return TextScore(count, nats, size)
