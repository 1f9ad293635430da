"""Says where a story loses its thread: what its writer's sentences say does not fit what is given.

The parts of a story are given by its prompt and fit each other; between them stands a sentence each of a
writer who is too small to remember who is who. Its faults are told from the words alone, in a tenth of a
millisecond. More stories are written than are needed, so a rule may refuse some good ones with the bad.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple

from tools.stories.prompts import ADJECTIVES, BEINGS, BOYS, GIRLS, NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools.stories.prompts import StoryPrompt

_OWN = re.compile(r"[^.!?]*[.!?]")
"""A sentence of the writer's, whose first full stop ends it."""
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?")
_BOUNDARY = re.compile(r"[.!?]\"? ")
_LONGEST = 8
"""Words of a writer's sentence."""
_TIMES = 3
"""How often a writer may say a word that is given, and less than how often one of its own."""
_FUNCTION_WORDS = (
    "a about above after again all along also always am an and another any are around as at away back be "
    "because been before behind but by can could couldn't day did didn't do down each even ever every "
    "everyone for from had has have he her herself him himself his home how if in inside into is it its "
    "just like little many more most much near never new next no not now of off on one only onto or other "
    "out outside over own same she so some something soon still such than that the their them then there "
    "they this through to together too under until up upon very was wasn't well were what when where "
    "which while who why will with would"
)
_FUNCTION = frozenset(_FUNCTION_WORDS.split())
"""Words that a sentence may say twice."""
_NAMES = frozenset(NAMES)
_SEX = {
    **dict.fromkeys((*GIRLS, "mother", "mom", "sister", "grandmother", "queen"), "she"),
    **dict.fromkeys((*BOYS, "father", "dad", "brother", "grandfather", "king"), "he"),
}
_PRONOUNS = {
    **dict.fromkeys(("he", "him", "his", "himself"), "he"),
    **dict.fromkeys(("she", "her", "hers", "herself"), "she"),
}
_OPPOSITES = (
    ("happy", frozenset(("sad", "sadly", "angry", "cry", "cried", "lonely", "upset", "unhappy"))),
    ("brave", frozenset(("afraid", "scared", "shy", "frightened"))),
)
_ONE_WORD = [["it"], ["him"], ["her"], ["them"], ["me"], ["there"], ["that"]]
"""Sentences that say nothing."""
_SORRY_WORDS = (
    "not never no nothing nobody sad sadly angry scared afraid cried tears alone lonely hurt worried gone "
    "without don't didn't couldn't wasn't lost strange scary bad stuck"
)
_SORRY = frozenset(_SORRY_WORDS.split())
"""Words of a sentence that ends no story well."""
_ANY_NAME = "|".join(NAMES)
_DESCRIBES = re.compile(
    rf"""\b(?:named|called|kind\ of|not\ just|had\ been|one\ (?:day|night))\b
    |\b(?:who|which)\ (?:was|were|is|are)\b
    |\b(?:{_ANY_NAME})\ the\b
    |\b(?:he|she|they|it|{_ANY_NAME})\ (?:was|were|is)
        \ (?:(?:also|not|just|only|still|always|now|really)\ )*(?:an?|the|one|like|made)\b""",
    re.IGNORECASE | re.VERBOSE,
)
"""Tells anew who or what somebody is, or begins the story a second time."""
_ANY_ADJECTIVE = "|".join(sorted(ADJECTIVES))
_SLIPS = re.compile(
    rf"""^'s\b | \b(?:it|who|that|there|what)'s\b | \b[Aa]\ [aeio] | \b[Aa]n\ [^aeiouh] | \ A\b
    | \b(?:and|but|or|the|an?|his|their|its|of|to|very|so|because|if|than|as|who|that|which|for|into)\W*$
    | \b(?:the|an?|his|her|their|its)\ (?:{_ANY_ADJECTIVE}|most|more|many|much)\W*$""",
    re.VERBOSE,
)
"""Of grammar, as a writer makes them whose draws are free: `it's` is its `its`."""
_Place = Literal["first", "middle", "last"]


class _Sentence(NamedTuple):
    """Holds a sentence of the writer's.

    Attributes:
        begin: Its words that are given, in lower case.
        text: What the writer wrote.
        words: Of `text`.
        known: Names and kin that came before it.
        place: Where it stands.
    """

    begin: list[str]
    text: str
    words: list[str]
    known: frozenset[str]
    place: _Place


def lost_thread(text: str, prompt: StoryPrompt) -> str:
    """Names the first fault of what a writer wrote between the parts of its prompt, "" if it has none.

    Args:
        text: As `clean` returns it.
        prompt: What it was asked for by.
    """
    sentences = _own_sentences(text, prompt.parts)
    if sentences is None:
        return "parts"
    given = [_words(part) for part in prompt.parts]
    plot = {word.lower() for words in given[1:] for word in words if word not in _NAMES}
    anybody = _has_beings(given[1:])
    for sentence in sentences:
        if reason := _fault(sentence, plot, anybody=anybody):
            return reason
    return "again" if _again([sentence.words for sentence in sentences], plot) else ""


def own_text(text: str, prompt: StoryPrompt) -> str:
    """Returns what a writer wrote between the parts of its prompt; "" if the text has other parts.

    Args:
        text: As `clean` returns it.
        prompt: What it was asked for by.
    """
    return " ".join(sentence.text for sentence in _own_sentences(text, prompt.parts) or ())


def _fault(sentence: _Sentence, plot: set[str], *, anybody: bool) -> str:
    words = sentence.words
    if not words or sentence.text[0] == "," or words[0] in ("and", "or") or words in _ONE_WORD:
        return "empty"
    if len(words) > _LONGEST:
        return "long"
    names = [word for word in words if word in _NAMES]
    if not sentence.known.issuperset(names):
        return "stranger"
    low = [word.lower() for word in words]
    sexes = {_SEX[word] for word in (*sentence.known, *low) if word in _SEX}
    if not anybody and any(_PRONOUNS[word] not in sexes for word in low if word in _PRONOUNS):
        return "pronoun"
    content = [word for word in low if word not in _FUNCTION]
    begin = {word for word in sentence.begin if word not in _FUNCTION and word.title() not in _NAMES}
    if len(set(content)) < len(content) or not begin.isdisjoint(content) or sentence.begin[0] in content:
        return "twice"
    if _DESCRIBES.search(sentence.text):
        return "description"
    if _SLIPS.search(sentence.text):
        return "slip"
    if sentence.place == "first" and not plot.isdisjoint(content):
        return "opening"
    if sentence.place == "last" and not _SORRY.isdisjoint(low):
        return "ending"
    begin.update(content)
    if any(mood in begin and not others.isdisjoint(begin) for mood, others in _OPPOSITES):
        return "opposite"
    return ""


def _own_sentences(text: str, parts: Sequence[str]) -> list[_Sentence] | None:
    """Finds what stands between the parts; None if the text has other parts."""
    text, at = text.replace("\n\n", " "), 0
    sentences: list[_Sentence] = []
    known: set[str] = set()
    for number, given in enumerate(parts[:-1]):
        part = given.lstrip("\n")
        found = _OWN.match(text, at + len(part))
        if found is None or not text.startswith(part, at):
            return None
        at = found.end() + 1
        known.update(word for word in _words(part) if word in _SEX)
        begin = _words(_BOUNDARY.split(part)[-1].lower())
        own = found[0].lstrip()
        words = _words(own)
        place: _Place = "first" if number == 0 else "last" if number == len(parts) - 2 else "middle"
        sentences.append(_Sentence(begin, own, words, frozenset(known), place))
        known.update(word for word in words if word in _SEX)  # kin: who is named here is refused
    return sentences if at > len(text) else None


def _words(text: str) -> list[str]:
    return [word.removesuffix("'s") for word in _WORD.findall(text)]


def _again(sentences: Sequence[Sequence[str]], plot: set[str]) -> bool:
    """Tells if the writer says three words again, or a word of its own too often."""
    low = [[word.lower() for word in words] for words in sentences]
    grams = [
        gram
        for words in low
        for gram in zip(words, words[1:], words[2:], strict=False)
        if sum(word not in _FUNCTION for word in gram) > 1
    ]
    if len(set(grams)) < len(grams):
        return True
    said = Counter(
        word for words in low for word in words if word not in _FUNCTION and word.title() not in _NAMES
    )
    return any(times >= _TIMES + (word in plot) for word, times in said.items())


def _has_beings(plot: Sequence[Sequence[str]]) -> bool:
    """Tells if the plot tells of an animal without a name or of a stranger, whose sex nobody knows."""
    for words in plot:
        for at, word in enumerate(words):
            named = at > 1 and words[at - 1] == "the" and words[at - 2] in _NAMES
            if word.removesuffix("'s") in BEINGS and not named:
                return True
    return False
