"""Stands for a model's tokenizer in the process that lists kernels: they follow from its size and its ends.

Another process tells these. Reading a tokenizer takes some tenths of a second, with the interpreter held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from edge_tui.engine.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edge_tui.engine.checkpoints.source import CheckpointSource


class TokenizerFacts(NamedTuple):
    """Holds the attributes of a `Tokenizer` that a process can tell another, by the same names."""

    size: int
    bos_id: int | None
    end_ids: tuple[int, ...]


class ListedTokenizer(Tokenizer):
    """Has these facts at once, and reads the checkpoint's tokenizer when anything else is asked of it.

    Args:
        source: The checkpoint.
        facts: Of its tokenizer.
    """

    def __init__(self, source: CheckpointSource, facts: TokenizerFacts) -> None:
        self._source = source
        self.size, self.bos_id, self.end_ids = facts

    def token_strings(self, ids: Iterable[int]) -> list[str]:
        """Returns no text: no kernel follows from what a prompt says."""
        return ["" for _ in ids]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "fast" in self.__dict__:
            raise AttributeError(name)
        self.__dict__ |= Tokenizer.open(self._source).__dict__
        return getattr(self, name)


def facts_of(source: CheckpointSource) -> TokenizerFacts:
    """Reads the facts of a checkpoint's tokenizer.

    Raises:
        CheckpointError: there is no tokenizer, or it is broken.
    """
    tokenizer = Tokenizer.open(source)
    return TokenizerFacts(tokenizer.size, tokenizer.bos_id, tokenizer.end_ids)
