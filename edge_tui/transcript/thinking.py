"""Thoughts that a model writes before its answer: found as they stream, folded away from the text.

Reasoning models wrap them in `<think>…</think>` (or `<thinking>`, `<reasoning>`), often in tokens of their
own, sometimes in pieces; some templates open the thought in the prompt. The tags stay, what is between
them becomes `⋯`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLD = "⋯"
_OPEN = re.compile(r"<(think|thinking|reasoning)>")
_CLOSE = re.compile(r"</(think|thinking|reasoning)>")
_LONGEST = len("</reasoning>")


class Thoughts:
    """Folds the texts of one sequence of tokens, in their order.

    Args:
        opened: Whether the text begins inside a thought.
    """

    def __init__(self, opened: bool = False) -> None:
        self.inside = opened
        """Whether the last token fed belongs to a thought that has not ended."""
        self.hidden = 0
        """Tokens of which nothing is shown."""
        self.fed = 0
        """Tokens fed."""
        self._fresh = opened
        self._tail = ""

    def fold(self, texts: Iterable[str]) -> list[str]:
        """What to show of the next tokens: as many texts as were given."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> str:
        self.fed += 1
        if not self.inside and "<" not in text and "<" not in self._tail:
            # Nearly every token: nothing begins here, and nothing before it is unfinished.
            return text
        joined = self._tail + text
        at, tagged = len(self._tail), 0  # the end of what is shown already, and of the last tag
        shown = FOLD if self._fresh else ""
        self._fresh = False
        while (found := (_CLOSE if self.inside else _OPEN).search(joined, tagged)) is not None:
            shown += found.group() if self.inside else joined[at : found.end()] + FOLD
            self.inside = not self.inside
            at = tagged = found.end()
        if not self.inside:
            shown += joined[at:]
        if text and not shown:
            self.hidden += 1
        # Only what may still become a tag needs to be remembered.
        rest = joined[tagged:][-_LONGEST:]
        start = rest.rfind("<")
        self._tail = rest[start:] if start >= 0 else ""
        return shown


def visible(text: str, opened: bool = False) -> str:
    """A whole text without its thoughts."""
    folded = Thoughts(opened).fold([text])[0]
    return re.sub(rf"(<\w+>)?{FOLD}(</\w+>)?\s*", "", folded)
