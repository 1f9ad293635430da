"""Folds away the thoughts that a model writes before its answer, while they stream.

Reasoning models wrap them in `<think>…</think>` (or `<thinking>`, `<reasoning>`), often in tokens of their
own, sometimes in pieces; some templates open the thought in the prompt. The tags stay, the text between
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
        starts_inside: True where the text begins inside a thought.
    """

    def __init__(self, starts_inside: bool = False) -> None:
        self.inside = starts_inside
        """True while the newest token belongs to a thought that has not ended."""
        self.hidden_count = 0
        """Tokens of which nothing is shown."""
        self.token_count = 0
        """Tokens so far."""
        self._fold_is_due = starts_inside
        self._tail = ""

    def fold(self, texts: Iterable[str]) -> list[str]:
        """Returns the texts to show of the next tokens, one for each."""
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> str:
        """Folds the text of one token."""
        self.token_count += 1
        if not self.inside and "<" not in text and "<" not in self._tail:
            # Nearly every token: nothing begins here, and nothing before it is unfinished.
            return text
        joined = self._tail + text
        at, tagged = len(self._tail), 0  # the end of what is shown already, and of the last tag
        shown = FOLD if self._fold_is_due else ""
        self._fold_is_due = False
        while (found := (_CLOSE if self.inside else _OPEN).search(joined, tagged)) is not None:
            shown += found.group() if self.inside else joined[at : found.end()] + FOLD
            self.inside = not self.inside
            at = tagged = found.end()
        if not self.inside:
            shown += joined[at:]
        if text and not shown:
            self.hidden_count += 1
        # A later token can complete a tag that begins here.
        rest = joined[tagged:][-_LONGEST:]
        start = rest.rfind("<")
        self._tail = rest[start:] if start >= 0 else ""
        return shown


def without_thoughts(text: str, starts_inside: bool = False) -> str:
    """Removes the thoughts from a whole text."""
    folded = Thoughts(starts_inside).fold([text])[0]
    return re.sub(rf"(<\w+>)?{FOLD}(</\w+>)?\s*", "", folded)
