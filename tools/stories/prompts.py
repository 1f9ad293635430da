"""Makes the prompt of each story out of its number, and its frame: how the story and its sentences begin.

The writer is too small to think of a story that holds together, and says the same few things unless its
prompt is made anew (as TinyStories found, Eldan and Li, arXiv 2305.07759). So chance decides a hero, a
friend, a place and things from lists.txt, and a frame from frames.txt. A frame begins the sentences; what
they say is the writer's. In a frame `[a/b]` is a or b, `<then>` is one of `_PHRASES`, and `{t}` is a word of
a list. What has no choice makes a text that is too sure: a model that learned it never loops, and even a
high temperature leaves it as it is.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__)


def _read_lists() -> dict[str, tuple[str, ...]]:
    lines = _HERE.with_name("lists.txt").read_text(encoding="ascii").splitlines()
    return {name: tuple(words.split(", ")) for name, _, words in (line.partition(": ") for line in lines)}


_LISTS = _read_lists()
GIRLS, BOYS = _LISTS["girls"], _LISTS["boys"]
NAMES = (*GIRLS, *BOYS)
"""Plain first names; a story that names anybody else is not kept."""
ADJECTIVES = frozenset((*_LISTS["mood"], *_LISTS["color"]))
BEINGS = frozenset(being for name in ("animal", "small", "big", "pet", "stranger") for being in _LISTS[name])
"""Animals and strangers of the plots."""
_LETTERS = {
    "m": "mood",
    "p": "place",
    "t": "thing",
    "g": "food",
    "k": "cake",
    "y": "pet",
    "v": "skill",
    "x": "fear",
    "c": "gift",
    "b": "breakable",
    "w": "light",
    "s": "small",
    "z": "big",
    "j": "building",
    "q": "trip",
    "r": "stranger",
    "a": "animal",
}
"""List of what stands for a letter in a frame."""
_PHRASES = {
    "<then>": "[then /soon /after a while, /a little later, /after that, /before long, /at last, /]",
    "<last>": "[at last, /in the end, /finally, /after a long time, /at long last, /then /]",
    "<next>": "[the next day, /the next morning, /after some days, /that evening, /a week later, /]",
    "<every>": "[every day, /every morning, /each day, /day after day, /all week, /every evening, ]",
    "<sudden>": "[suddenly, /all at once, /but then /just then, /then ]",
    "<under>": "[under/behind/into/inside/near/over/around]",
    "<where>": "[under/behind/inside/near/in/next to]",
    "<said>": "[said/whispered/shouted/cried/called/answered]",
    "<saw>": "[saw/found/met]",
    "<smiled>": "[smiled/laughed/nodded/clapped/danced/sang]",
}
"""Choices that many frames have."""
_DAYS = {
    "{D}": "[One day/One morning/One afternoon/One evening/One Sunday/One summer day/One fine day/On Monday/"
    "In the spring/In the summer/After lunch/After school/One Saturday/Before dinner]",
    "{T}": "[One night/Late one night/One evening/In the middle of the night/One dark night/After dinner]",
}


def _read_frames() -> tuple[str, ...]:
    text = _HERE.with_name("frames.txt").read_text(encoding="ascii")
    for phrase, choices in _PHRASES.items():
        text = text.replace(phrase, choices)
    return tuple(text.splitlines())


_FRAMES = _read_frames()
_CHOICE = re.compile(r"\[([^]]*)\]")
_OPENINGS = (
    ("Once upon a time, there was a {m} {h} [named/called] {n}. {He} lived {p} [and/with/but] |", 3),
    ("Once upon a time, there was a {h} [named/called] {n} who [liked to/loved to/wanted to/had] |", 3),
    ("Once upon a time, there was a {h} [named/called] {n} who lived {p} with |", 2),
    ("Once upon a time, there was a {m} {h} [named/called] {n}. {He} [liked to/loved/wanted/had a] |", 2),
    ("Once upon a time, a {m} {h} [named/called] {n} lived {p}. Every [day/morning/evening], {he} |", 2),
    ("Once upon a time, a {h} [named/called] {n} lived {p} and |", 2),
    ("{n} was a {m} {h}. {He} lived {p} and [loved/liked/had/wanted] |", 2),
    ("There was once a {m} {h} [named/called] {n}. {He} [liked to/could/had a] |", 2),
    ("A {m} {h} [named/called] {n} lived {p}. {He} [liked to/had/loved] |", 2),
    (
        "It was a [sunny/warm/cold/windy/bright/rainy/snowy/quiet/hot/dark] day. A {m} {h} [named/called] {n}"
        " was [playing with/sitting in/walking to/looking for/alone and] |",
        2,
    ),
    ("{n} and {O} were friends. They lived {p} and [liked to/had/loved/wanted to] |", 2),
    ("{n} the {a} was {m}. {He} lived {p} [and/with] |", 1),
    ("Far away, {p}, there lived a {m} {h} [named/called] {n}. {He} |", 1),
    ("Long ago, a {h} [named/called] {n} had |", 1),
)
_ENDINGS = (
    *("In the end, {n}", "That night, {n}", "{n} was so [happy/glad/proud] that {he}", "{n} smiled and"),
    *("{n} learned [that it is good to/to/how to]", "Then {n} [went/ran/walked] home and"),
    *("That night, {n} went to bed and", "From that day on, {n}", "{n} never forgot", "And {n}"),
    *("The sun went down, and {n}", "When {he} came home, {n}", "After dinner, {n}", "{n} laughed and"),
    *("Now {n} [had/was/could]", "It was a [good/long/lovely/busy] day, and {n}"),
)
_ENDINGS_OF_TWO = (
    *("From that day on, {n} and {f}", "Then they [went/ran/walked] home and", "They laughed and"),
    *("{f} [hugged/thanked/kissed] {n} and", "They were [happy/glad/proud] that they"),
    *("That evening, {n} and {f}", "{n} and {f} [smiled/laughed/danced] and", "It was the best"),
    *("The two friends", "After that, they", "Hand in hand, they", "At the end of the day, {n} and {f}"),
    *("{n} [thanked/hugged] {f} and", "{f} promised to", "All day, {n} and {f}", "Now they"),
)
"""Of stories in which there is a friend."""
_ONE_DAY = re.compile(r"(?:\{D\}|\{T\}|\bOne (?:(?:\w+|\[[^]]*\]) )?day), ")
_TEMPERATURES, _MIN_P = (1.2, 1.3, 1.4, 1.5, 1.6), 0.05
"""Of the draws: short sentences between given words bear much heat, as min-p leaves nonsense out."""
_FIRST = re.compile(r"(?:^\n*|[.!?] )[a-z]")
_ARTICLE = re.compile(r"\b([Aa]) ([aeio]|honest|um|un|ug)")
_ASSISTANT = ".<|im_end|>\n<|im_start|>assistant\n"
BEFORE = (
    "<|im_start|>system\nYou write short and simple stories for small children.<|im_end|>\n"
    "<|im_start|>user\nWrite a story about"
)
"""What every prompt begins with."""


class StoryPrompt(NamedTuple):
    """Describes what a story is asked for by.

    Attributes:
        chat: What follows `BEFORE`, up to the story.
        parts: Texts of the story; between them the writer writes a sentence each. One may be empty.
        temperature, min_p: Of its draws.
    """

    chat: str
    parts: tuple[str, ...]
    temperature: float
    min_p: float


class _Values(dict[str, str]):
    """Draws what stands for a letter when it is first asked for."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def __missing__(self, key: str) -> str:
        self[key] = value = self._rng.choice(_LISTS[_LETTERS[key]])
        return value


def story_prompt(seed: int, number: int) -> StoryPrompt:
    """Makes the prompt of one story; the same seed and number make the same."""
    rng = random.Random(f"{seed}/{number}")
    values = _Values(rng)
    name, friend = rng.sample(NAMES, 2)
    child = "girl" if name in GIRLS else "boy"
    he, him, his = ("she", "her", "her") if name in GIRLS else ("he", "him", "his")
    openings, weights = zip(*_OPENINGS, strict=True)
    opening, frame = rng.choices(openings, weights)[0], rng.choice(_FRAMES)
    hero = values["a"] if "{a}" in opening else rng.choice((child, child, rng.choice(_LISTS["animal"])))
    first = rng.choice((f"{his} friend {friend}", f"{friend} the {rng.choice(_LISTS['animal'])}"))
    values |= {
        "n": name,
        "h": hero,
        "f": friend,
        "F": first,
        "O": first.removeprefix(f"{his} friend "),
        "A": rng.choice(("", "", f"{rng.choice(_LISTS['color'])} ")),
        "he": he,
        "He": he.title(),
        "him": him,
        "his": his,
    }
    two = "{O}" in opening or "{F}" in frame
    ending = rng.choice(_ENDINGS + _ENDINGS_OF_TWO if two else _ENDINGS)
    if "{O}" in opening:
        frame = frame.replace("{F}", "{f}")
    if opening.startswith("It was a"):  # the day is there
        frame = _ONE_DAY.sub(lambda found: "that night, " if found[0] == "{T}, " else "", frame)
    for letter, days in _DAYS.items():
        frame = frame.replace(letter, days)
    gap = rng.choice(("\n\n", ""))

    def fill(text: str) -> str:
        chosen = _CHOICE.sub(lambda found: rng.choice(found[1].split("/")), text).format_map(values)
        return _ARTICLE.sub(r"\1n \2", chosen)

    parts = fill(f"{opening}{gap}{frame} | {ending} |").split("|")
    chat = fill(f" {name}, a {{m}} {hero} {{p}}{_ASSISTANT}")
    return StoryPrompt(chat, tuple(map(_sentence, parts)), rng.choice(_TEMPERATURES), _MIN_P)


def _sentence(part: str) -> str:
    part = part.strip(" ")
    return _FIRST.sub(lambda found: found[0].upper(), part)
