"""Finds the turn of a conversation that each token of a prompt is of, and the tokens that the template wrote.

The chat template renders the conversation a second time, with a private character in the place of each turn's
text. That shows where the texts stand and what the template writes around them; along these fixed parts the
prompt is cut.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edge_tui.engine.port import Message

Part = tuple[str, str]
"""The role of a turn, "" for the template, and a part of the prompt that is of it."""

_MARKS = range(0x10FFFD, 0x100000, -1)
"""Private characters that stand for a turn's text; those from below hide control tokens' names."""
_THOUGHT_ENDS = "</think>"


def marks_of(messages: Sequence[Message], template: str) -> list[str]:
    """Returns a character for each turn that neither the turns nor the template hold."""
    used = set(template).union(*(turn.content for turn in messages))
    free = (char for char in map(chr, _MARKS) if char not in used)
    return [mark for mark, _ in zip(free, messages, strict=False)]


def cut(rendered: str, marked: str, turns: Mapping[str, Message]) -> list[Part] | None:
    """Cuts a rendered conversation into the parts of its turns and those of the template.

    Args:
        rendered: The conversation.
        marked: The same with a mark in the place of each turn's text.
        turns: The turns by their marks.

    Returns:
        The parts in order; None where the template writes other words around these texts than around marks.
    """
    fixed, *rest = re.split(f"([{''.join(turns)}])", marked)
    if not rendered.startswith(fixed):
        return None
    parts, at = [("", fixed)], len(fixed)
    for number in range(0, len(rest), 2):
        turn, fixed = turns[rest[number]], rest[number + 1]
        end = _end(rendered, at, turn.content, fixed, last=number + 2 == len(rest))
        if end < at:
            return None
        parts += [(turn.role, rendered[at:end]), ("", fixed)]
        at = end + len(fixed)
    return parts if at == len(rendered) else None


def _end(rendered: str, at: int, content: str, fixed: str, last: bool) -> int:
    """Finds the end of a turn's text that begins at `at` and that `fixed` follows; −1 if there is none."""
    for form in _forms(content):
        end = at + len(form)
        if rendered.startswith(form + fixed, at) and (not last or end + len(fixed) == len(rendered)):
            return end
    # The template has changed the text: it ends where what follows begins.
    if last:
        return len(rendered) - len(fixed) if rendered.endswith(fixed) else -1
    return rendered.find(fixed, at)


def _forms(content: str) -> Iterator[str]:
    """Yields a turn's text as templates write it: as it is, stripped, without its thoughts."""
    for text in dict.fromkeys((content, content.rpartition(_THOUGHT_ENDS)[2])):
        yield from dict.fromkeys((text, text.strip(), text.lstrip(), text.rstrip(), text.lstrip("\n")))


def roles_of(parts: Sequence[Part], spans: Sequence[tuple[int, int]]) -> list[str]:
    """Finds the role of each token; a token that reaches into a turn's text is of the turn.

    Args:
        parts: The prompt in parts.
        spans: First character and end of each token in the joined parts, in order. Blanks may be missing
            from them, as byte-level tokenizers leave them out.
    """
    text = "".join(part for _, part in parts)
    ends = list(accumulate(len(part) for _, part in parts))
    found, before = [], 0
    for start, end in spans:
        is_gap = start > before and not text[before:start].strip(" ")
        first = before if is_gap else start
        at = bisect_right(ends, first)
        last = bisect_right(ends, max(end - 1, first))
        roles = [role for role, part in parts[at : last + 1] if role and part] if end > first else []
        found.append(roles[0] if roles else "")
        before = max(before, end)
    return found
