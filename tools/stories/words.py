"""Tells which words are simple, and which tokens of a tokenizer write nothing else.

A model of a few million parameters learns to tell stories if their words are few (TinyStories, arXiv
2305.07759). The list holds base words; endings follow by rule.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tools.stories.prompts import BEINGS, NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENDINGS = ("s", "es", "ed", "ing", "ly", "er", "est", "y")
SENTENCE_ENDS = ".!?"
_MARKS = (*SENTENCE_ENDS, "'s", "'t")
"""Tokens beside words, as a byte-level tokenizer spells them. After a comma the writer loses its thread."""
_LEFT_OUT = (
    "i you your yours yourself my mine myself me we us our say says said saying ask asks asked asking tell "
    "tells told telling shout shouts shouted shouting whispered call called calling called answered replied "
    "explained yes no oh ok okay wow hello hi bye please dear big special really lots beautiful "
    "just even own thing things way life world kiss cage"
)
"""Simple words that the writer does not write: a small model's characters talk past each other, so nobody
speaks but in the plot; and some that it says in every sentence."""
_BEINGS = (
    "named name names boy boys girl girls man men woman women baby lady person people child children king "
    "queen prince princess animal animals creature creatures bear rabbit bunny fox mouse mice duck frog "
    "toad squirrel owl dog doggy puppy cat kitten kitty pony horse lamb sheep hen chicken chick rooster "
    "turtle elephant lion tiger monkey penguin whale dolphin seal bee snail pig piglet goat donkey crow "
    "deer wolf wolves cow goose geese snake spider crab otter hedgehog beetle cricket dragon ant worm "
    "caterpillar ladybug firefly pet pets"
)
"""Nor are these written: a small writer calls a donkey a puppy and a girl a cat. Plots name who there is."""


@cache
def base_words() -> frozenset[str]:
    """Reads the list."""
    return frozenset(Path(__file__).with_name("words.txt").read_text(encoding="ascii").split())


@cache
def is_simple(word: str) -> bool:
    """Tells if a lower-case word is on the list, or is one that is there with an ending."""
    words = base_words()
    if word in words:
        return True
    stems = (word.removesuffix(end) for end in _ENDINGS if word.endswith(end))
    return any(len(stem) > 2 and not _spellings(stem).isdisjoint(words) for stem in stems)


def _spellings(stem: str) -> set[str]:
    """Lists the words that may have lost or changed a letter before an ending: bake, stop, happy."""
    found = {stem, stem + "e"}
    if stem[-1] == stem[-2]:
        found.add(stem[:-1])
    if stem[-1] == "i":
        found.add(stem[:-1] + "y")
    return found


def simple_tokens(vocabulary: Mapping[str, int]) -> list[int]:
    """Lists the tokens that the writer writes: each is a simple word, a first name or a mark.

    Args:
        vocabulary: Ids by token, of a byte-level tokenizer.
    """
    return sorted(id for token, id in vocabulary.items() if token in _MARKS or _is_word(token))


def _is_word(token: str) -> bool:
    word = token.removeprefix("Ġ")
    if word in NAMES:
        return True
    if word == "One":  # a story that tells of "One day" twice begins twice
        return False
    if not (word.isascii() and word.isalpha()):
        return False
    # A word in lower case without a blank before it would be glued to the word before.
    return (word.istitle() or (token != word and word.islower())) and _is_written(word.lower())


@cache
def _never_written() -> frozenset[str]:
    beings = (*BEINGS, *_BEINGS.split())
    return frozenset(
        (*_LEFT_OUT.split(), *beings, *(f"{being}{ending}" for being in beings for ending in ("s", "es")))
    )


def _is_written(word: str) -> bool:
    return word not in _never_written() and is_simple(word)
