"""Says why a story is not kept: cut off, marked up, looping, or with names or words that it should not have.

A story is judged alone, but for its words: `WordList` holds those that count as English.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from tools.stories.prompts import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHORTEST, LONGEST = 50, 400
"""Words of a story that is kept."""
_TYPOGRAPHY = str.maketrans(
    {"‘": "'", "’": "'", "“": '"', "”": '"', "—": " - ", "–": " - ", "…": "...", " ": " "}
)
_PLAIN = re.compile(r"[A-Za-z0-9 \n.,!?;:'\"-]+")
_END = re.compile(r"[.!?][\"']?")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_SENTENCE = re.compile(r"[^.!?]+[.!?]+[\"']?")
_CHAT = re.compile(
    r"\b(?:language model|story about|(?:this|the|our) story (?:is|has|ends|begins|was)|word count)\b", re.I
)
_MIDDLE = re.compile(r"(?<=[a-z,;] )([A-Z][a-z]+)")
"""A capital letter where no sentence begins: the word is a name."""
_TWO_NAMES = re.compile(rf"\b(?:{'|'.join(NAMES)}) [A-Z]")
_FAMILY = ("Mom", "Dad", "Mommy", "Daddy", "Mama", "Papa", "Mum", "Grandma", "Grandpa", "Mr", "Mrs", "Miss")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Christmas")
_ALLOWED = frozenset((*NAMES, *_FAMILY, *_DAYS, "I"))
_GRAM = 4
_LOOPED = 0.12
"""Share of word 4-grams that a story may have said before."""
_ENDINGS = ("'s", "s", "es", "ed", "d", "ing", "ly", "er", "r", "est", "y", "ful", "n't")


def clean(text: str) -> str:
    """Writes typographic marks in ASCII, and one blank line between paragraphs."""
    paragraphs = (" ".join(part.split()) for part in text.translate(_TYPOGRAPHY).splitlines())
    return "\n\n".join(part for part in paragraphs if part)


class WordList:
    """Knows English words: those of a vocabulary, and those that many stories write in lower case.

    Args:
        vocabulary: Words of a tokenizer made for English.
        common: Stories that must write a word before it counts.
    """

    def __init__(self, vocabulary: Iterable[str], common: int = 5) -> None:
        self._words = set(vocabulary)
        self._common = common
        self._counts: Counter[str] = Counter()

    def count(self, words: Iterable[str]) -> None:
        """Counts the lower-case words of one story, each once."""
        self._counts.update(set(words))

    def __contains__(self, word: str) -> bool:
        if word in self._words or self._counts[word] >= self._common:
            return True
        stems = (word.removesuffix(end) for end in _ENDINGS if word.endswith(end))
        return any(
            len(s) > 2 and (s in self._words or s + "e" in self._words or s[:-1] in self._words)
            for s in stems
        )


def lower_words(text: str) -> set[str]:
    """Returns the words that a text writes in lower case."""
    return {word for word in _WORD.findall(text) if word.islower()}


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
    return "name" if _TWO_NAMES.search(text) else ""


def unknown_words(text: str, known: WordList) -> list[str]:
    """Lists the words that are neither English nor an allowed name."""
    return [
        word
        for word in dict.fromkeys(_WORD.findall(text))
        if word.removesuffix("'s") not in _ALLOWED and word.lower() not in known
    ]


def _loops(text: str, words: Sequence[str]) -> bool:
    lowered = [word.lower() for word in words]
    grams = list(zip(*(lowered[n:] for n in range(_GRAM)), strict=False))
    if 1 - len(set(grams)) / max(len(grams), 1) > _LOOPED:
        return True
    sentences = Counter(" ".join(_WORD.findall(part)).lower() for part in _SENTENCE.findall(text))
    return any(times > 1 and said.count(" ") >= 4 for said, times in sentences.items())
