"""Says why a story is not kept: cut off, marked up, looping, or with names or words that it should not have.

A story is judged alone; that it says something new is for duplicates.py to tell.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tools.stories.prompts import NAMES
from tools.stories.words import is_simple

if TYPE_CHECKING:
    from collections.abc import Sequence

SHORTEST, LONGEST = 50, 220
"""Words of a story that is kept."""
_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "—": " - ", "–": " - ", "…": "...", " ": " "}
)
_PLAIN = re.compile(r"[A-Za-z0-9 \n.,!?;:'\"-]+")
_END = re.compile(r"[.!?][\"']?")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_SENTENCE = re.compile(r"[^.!?]+[.!?]+[\"']?")
_CHAT = re.compile(
    r"\b(?:language model|(?:this|the|our) story (?:is|has|ends|begins|was)|word count)\b", re.I
)
_MIDDLE = re.compile(r"(?<=[a-z,;] )([A-Z][a-z]+)")
"""A capital letter where no sentence begins: the word is a name."""
_TWO_NAMES = re.compile(rf"\b(?:{'|'.join(NAMES)}) [A-Z]")
_FAMILY = ("Mom", "Dad", "Mommy", "Daddy", "Mama", "Papa", "Mum", "Grandma", "Grandpa", "Mr", "Mrs", "Miss")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Christmas")
_FIRST_NAMES = frozenset(NAMES)
_ALLOWED = frozenset((*NAMES, *_FAMILY, *_DAYS, "I"))
_TWICE = re.compile(r"\b(?!(?:very|so|no) )([A-Za-z]+) \1\b|\b([A-Z][a-z]+) and \2\b")
_PERSONS = 3
"""First names that a story may have; with more it has wandered off."""
_GRAM = 4
_LOOPED = 0.12
"""Share of word 4-grams that a story may have said before."""


def clean(text: str) -> str:
    """Writes typographic marks in ASCII, and one blank line between paragraphs."""
    paragraphs = (" ".join(part.split()) for part in text.translate(_TYPOGRAPHY).splitlines())
    return "\n\n".join(part for part in paragraphs if part)


def refusal(text: str, ended: bool) -> str:
    """Names the first fault of a story's form, "" if it has none.

    Args:
        text: As `clean` returns it.
        ended: False if the model was cut off.
    """
    words = _WORD.findall(text)
    if not ended or not _END.fullmatch(text[-2:].lstrip() if text[-1:] in "\"'" else text[-1:]):
        return "cut off"
    if not SHORTEST <= len(words) <= LONGEST:
        return "length"
    if not _PLAIN.fullmatch(text):
        return "marks"
    if any(not _END.search(part[-2:]) for part in text.split("\n\n")):
        return "heading"
    if text.count('"') % 2:
        return "quotes"
    if _CHAT.search(text):
        return "chat"
    if _loops(text, words):
        return "loop"
    if any(name not in _ALLOWED for name in _MIDDLE.findall(text)):
        return "name"
    if _TWO_NAMES.search(text) or len(_persons(words)) > _PERSONS:
        return "name"
    return "word" if strange_words(text) else ""


def strange_words(text: str) -> list[str]:
    """Lists the words that are neither simple nor an allowed name."""
    words = dict.fromkeys(word.split("'")[0] for word in _WORD.findall(text))
    return [word for word in words if word not in _ALLOWED and not is_simple(word.lower())]


def _persons(words: Sequence[str]) -> set[str]:
    return {name for word in words if (name := word.split("'")[0]) in _FIRST_NAMES}


def _loops(text: str, words: Sequence[str]) -> bool:
    if _TWICE.search(text):
        return True
    lowered = [word.lower() for word in words]
    grams = list(zip(*(lowered[n:] for n in range(_GRAM)), strict=False))
    if 1 - len(set(grams)) / max(len(grams), 1) > _LOOPED:
        return True
    sentences = Counter(" ".join(_WORD.findall(part)).lower() for part in _SENTENCE.findall(text))
    return any(times > 1 and said.count(" ") >= 4 for said, times in sentences.items())
