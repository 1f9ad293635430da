"""Makes the prompt of each story out of its number, and its frame: how the story and its sentences begin.

The writer is too small to think of a story that holds together, and says the same few things unless its
prompt is made anew (as TinyStories found, Eldan and Li, arXiv 2305.07759). So chance decides a hero, a
friend, a place and a frame from frames.txt. A frame says in the chat what happens, and begins the sentences;
what they say is the writer's. Sentences that are given whole make a text that is too sure: a model
that learned it never loops, and even a high temperature leaves it as it is.
"""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import NamedTuple


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


GIRLS = _list(
    "Mia, Lily, Anna, Emma, Lucy, Ella, Ruby, Tara, Sara, Maya, Clara, Molly, Daisy, Ivy, Amy, Julia, "
    "Nina, Alice, Kate, Jenny, Bella, Ada, Luna, Sarah, Sophie, Maria, Mary, Emily, Rose, Ruth, Eva, "
    "Olivia, Jane, Grace, Sue, Hannah, Laura, Lisa"
)
BOYS = _list(
    "Ben, Tom, Max, Leo, Sam, Jack, Tim, Oscar, Noah, Finn, Adam, Luke, Peter, Omar, Hugo, Billy, Eli, "
    "Felix, Henry, Joe, Charlie, Jamie, Pip, Jake, Alex, John, Tommy, Ethan, Lucas, Simon, Bobby, Bob, "
    "Bill, Dan, Fred, George, Harry, Paul"
)
NAMES = (*GIRLS, *BOYS)
"""Plain first names; a story that names anybody else is not kept."""

_ANIMALS = _list(
    "bear, rabbit, fox, mouse, duck, frog, squirrel, owl, cat, dog, pony, lamb, hen, turtle, "
    "elephant, lion, monkey, penguin, whale, bee, snail, pig, goat, donkey, kitten, puppy, "
    "bird, crow, deer, wolf"
)
_PLACES = _list(
    "on a farm, in a small village, in the woods, at the beach, in a big garden, at school, at a busy "
    "market, on a hill, in an old house, in the park, at a lake, by a river, in the kitchen, in a library, "
    "at the zoo, in a snowy field, on a little island, on a train, in a tall tree, in the town, in the "
    "mountains, on a boat, in a toy shop, in a bakery, in a meadow, in an attic, in a tent, on a bridge, "
    "at a pond, on the moon, in a barn, in a castle, in a cave, in the yard, in the snow, at the sea"
)
_THINGS = _list(
    "kite, ball, key, hat, box, book, lamp, boat, bell, drum, cake, apple, shoe, map, flower, stone, "
    "feather, cup, blanket, basket, ladder, bucket, button, candle, carrot, clock, coat, coin, "
    "cookie, egg, flute, jar, leaf, letter, mirror, nut, "
    "pear, pie, pillow, ring, robot, seed, shell, sled, "
    "spoon, star, swing, umbrella, wagon, wheel, whistle, balloon, bike, "
    "broom, doll"
)
_MOODS = _list(
    "happy, sad, brave, shy, tired, curious, kind, proud, lonely, scared, silly, quiet, angry, "
    "hungry, patient, gentle, clumsy, careful, lazy, clever"
)
_FOODS = _list("cake, pie, cookie, apple, pear, sandwich, pizza, pancake, carrot, muffin, pumpkin, melon")
_CAKES = _list("cake, pie, cookie, pizza, pancake, muffin")
_PETS = _list("dog, cat, kitten, puppy, bunny, duck, goat, lamb, hen, pony")
_SKILLS = _list(
    "swim, fly, sing, dance, climb, read, draw, cook, fish, run fast, paint, ride a bike, sail, jump, whistle"
)
_FEARS = _list("dark, wind, water, snow, rain, dog, wolf, night, woods, sea, thunder, moon, cat, spider")
_FRAMES = tuple(
    tuple(line.split(": ", 1))
    for line in Path(__file__).with_name("frames.txt").read_text(encoding="ascii").splitlines()
)
_CHOICE = re.compile(r"\[([^]]*)\]")
_OPENINGS = (
    ("Once upon a time, there was a {m} {h} named {n}. {He} lived {p} and |", 3),
    ("Once upon a time, there was a {h} named {n} who |", 3),
    ("Once upon a time, there was a {m} {h} named {n} |", 2),
    ("Once upon a time, there was a {h} named {n}. {He} |", 2),
    ("Once upon a time, a {m} {h} named {n} lived {p}. |", 2),
    ("Once upon a time, {n} the {h} was |", 1),
    ("{n} was a {m} {h}. {He} |", 3),
    ("There was once a {m} {h} named {n}. {He} liked to |", 2),
    ("{n} the {h} lived {p}. {He} had |", 2),
    ("It was a [sunny/warm/cold/windy/bright] day. {n} the {h} was |", 2),
    ("{n} and {F} were |", 2),
)
_ENDINGS = (
    *("At last,", "In the end,", "That night, {n}", "From that day on, {n} and {f}", "{n} was so happy that"),
    *("Then they went home and", "After that,", "They laughed and", "{n} smiled and", "The next day,"),
    *("That evening,", "It was the best", "{n} learned that", "{f} hugged {n} and"),
)
_ARTICLE = re.compile(r"\b([Aa]) ([aeiou])")
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
        temperature, top_p: Of its draws.
    """

    chat: str
    parts: tuple[str, ...]
    temperature: float
    top_p: float


def story_prompt(seed: int, number: int) -> StoryPrompt:
    """Makes the prompt of one story; the same seed and number make the same."""
    rng = random.Random(f"{seed}/{number}")
    name, friend = rng.sample(NAMES, 2)
    child = "girl" if name in GIRLS else "boy"
    he, him, his = ("she", "her", "her") if name in GIRLS else ("he", "him", "his")
    hero = rng.choice((child, child, rng.choice(_ANIMALS)))
    animal, mood, place = rng.choice(_ANIMALS), rng.choice(_MOODS), rng.choice(_PLACES)
    first = rng.choice((f"{his} friend {friend}", f"{friend} the {animal}"))
    values = {
        "n": name,
        "h": hero,
        "m": mood,
        "p": place,
        "t": rng.choice(_THINGS),
        "g": rng.choice(_FOODS),
        "k": rng.choice(_CAKES),
        "y": rng.choice(_PETS),
        "v": rng.choice(_SKILLS),
        "x": rng.choice(_FEARS),
        "a": rng.choice(_ANIMALS),
        "f": friend,
        "F": first,
        "FF": first[0].upper() + first[1:],
        "he": he,
        "He": he.title(),
        "him": him,
        "his": his,
    }
    openings, weights = zip(*_OPENINGS, strict=True)
    opening, (plot, frame), ending = (
        rng.choices(openings, weights)[0],
        rng.choice(_FRAMES),
        rng.choice(_ENDINGS),
    )
    if "{F}" in opening:
        frame = frame.replace("{FF}", "{f}").replace("{F}", "{f}")
    gap = rng.choice(("\n\n", ""))

    def fill(text: str) -> str:
        chosen = _CHOICE.sub(lambda found: rng.choice(found[1].split("/")), text).format(**values)
        return _ARTICLE.sub(r"\1n \2", chosen)

    frame = "".join(rng.choice(("||", *"|||||")) if mark == "|" else mark for mark in frame)
    parts = fill(f"{opening}{gap}{frame} | {ending} |").split("|")
    chat = fill(f" {name}, a {mood} {hero} {place} who {plot}{_ASSISTANT}")
    draws = rng.choice((0.7, 0.8, 0.9)), 0.95
    return StoryPrompt(chat, tuple(part.strip(" ") for part in parts), *draws)
