"""Maps token ids to texts, as far as a server has sent them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Vocabulary:
    """Collects the texts of a remote tokenizer's ids.

    An edge-tui server sends ids with their texts. Others send texts only, which get numbers of our own:
    alternatives, prefixes and histories need ids.
    """

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._ids: dict[str, int] = {}

    def add(self, ids: Iterable[int], texts: Iterable[str]) -> None:
        """Adds ids with their texts."""
        self._texts.update(zip(ids, texts, strict=False))

    def id_of(self, text: str) -> int:
        """Returns our number for a text; the same text has the same number."""
        if (number := self._ids.get(text)) is None:
            number = self._ids[text] = len(self._ids)
            self._texts[number] = text
        return number

    def texts(self, ids: Sequence[int]) -> list[str]:
        """Returns the text of each id; "" for unknown ones."""
        return [self._texts.get(token, "") for token in ids]
