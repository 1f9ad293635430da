"""Token ids and their texts, as far as a server has told them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Vocabulary:
    """What is known of a remote tokenizer.

    A server of ours tells ids with their texts. Others tell texts only: those get numbers of our own, so that
    everything that counts in ids (alternatives, prefixes, histories) works with them as well.
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._ids: dict[str, int] = {}

    def learn(self, ids: Iterable[int], texts: Iterable[str]) -> None:
        """Takes over ids with their texts."""
        self._texts.update(zip(ids, texts, strict=False))

    def number(self, text: str) -> int:
        """A number for a text; the same text has the same number."""
        if (known := self._ids.get(text)) is None:
            known = self._ids[text] = len(self._ids)
            self._texts[known] = text
        return known

    def texts(self, ids: Sequence[int]) -> list[str]:
        """The text of each id; "" for those nobody told."""
        return [self._texts.get(token, "") for token in ids]

    def join(self, ids: Sequence[int]) -> str:
        """The text of a sequence of our own numbers."""
        return "".join(self.texts(ids))
