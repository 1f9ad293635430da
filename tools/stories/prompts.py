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
    "kite, ball, key, hat, book, lamp, bell, drum, shoe, cup, blanket, basket, bucket, button, clock, coat, "
    "coin, flute, mirror, pillow, ring, robot, spoon, umbrella, wagon, wheel, whistle, balloon, broom, doll, "
    "puzzle, ribbon, bag, brush, toy, scarf, flag, puppet, crayon, bowl"
)
_GIFTS = _list(
    "kite, hat, drum, blanket, basket, doll, robot, lamp, cake, pie, scarf, card, puppet, pillow, flute, mask"
)
_BREAKABLE = _list(
    "cup, lamp, jar, mirror, clock, drum, kite, robot, doll, bowl, plate, vase, flute, toy, swing, chair"
)
_LIGHT = _list("hat, kite, balloon, umbrella, letter, scarf, map, feather, ribbon, paper boat, flag, drawing")
_SMALL = _list(
    "rabbit, mouse, duck, frog, squirrel, owl, kitten, puppy, bird, lamb, fox, hedgehog, turtle, hen"
)
_BIG = _list("bear, lion, elephant, wolf, horse, dog, goat, deer, whale, giant, dragon, tiger")
_BUILDINGS = _list("house, boat, tower, castle, bridge, snowman, tent, treehouse, raft, sandcastle")
_TRIPS = _list("sea, zoo, market, farm, city, lake, park, woods, river, fair, library, toy shop")
_STRANGERS = _list("king, queen, fairy, giant, wizard, princess, knight, witch, pirate, dragon")
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
_FEARS = _list("dark, wind, water, snow, rain, dog, wolf, night, woods, sea, thunder, cave")
BEINGS = frozenset((*_ANIMALS, *_SMALL, *_BIG, *_PETS, *_STRANGERS))
"""Animals and strangers of the plots."""
_FRAMES = tuple(Path(__file__).with_name("frames.txt").read_text(encoding="ascii").splitlines())
_CHOICE = re.compile(r"\[([^]]*)\]")
_OPENINGS = (
    ("Once upon a time, there was a {m} {h} named {n}. {He} lived {p} and liked to |", 3),
    ("Once upon a time, there was a {h} named {n} who liked to |", 3),
    ("Once upon a time, there was a {h} named {n} who lived {p} with |", 2),
    ("Once upon a time, there was a {m} {h} named {n}. {He} liked to |", 2),
    ("Once upon a time, a {m} {h} named {n} lived {p}. Every day, {he} played with {his} |", 2),
    ("Once upon a time, a {h} named {n} lived {p} and |", 2),
    ("{n} was a {m} {h}. {He} lived {p} and loved |", 3),
    ("There was once a {m} {h} named {n}. {He} liked to |", 2),
    ("A {m} {h} named {n} lived {p}. {He} liked to |", 2),
    ("It was a [sunny/warm/cold/windy/bright] day. A {m} {h} named {n} was playing with {his} |", 2),
    ("{n} and {O} were friends. They lived {p} and liked to |", 2),
)
_ENDINGS = (
    *("In the end, {n}", "That night, {n}", "{n} was so happy that {he}", "{n} smiled and"),
    *("{n} learned that it is good to", "Then {n} went home and", "That night, {n} went to bed and"),
)
_ENDINGS_OF_TWO = (
    *("From that day on, {n} and {f}", "Then they went home and", "They laughed and", "{f} hugged {n} and"),
    *("They were happy that they", "That evening, {n} and {f}", "{n} and {f} smiled and", "It was the best"),
)
"""Of stories in which there is a friend."""
_ONE_DAY = re.compile(r"\bOne (?:(?:\w+|\[[^]]*\]) )?(day|night), ")
_FIRST = re.compile(r"(?:^\n*|[.!?] )[a-z]")
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
        "c": rng.choice(_GIFTS),
        "b": rng.choice(_BREAKABLE),
        "w": rng.choice(_LIGHT),
        "s": rng.choice(_SMALL),
        "z": rng.choice(_BIG),
        "j": rng.choice(_BUILDINGS),
        "q": rng.choice(_TRIPS),
        "r": rng.choice(_STRANGERS),
        "f": friend,
        "F": first,
        "O": first.removeprefix(f"{his} friend "),
        "he": he,
        "He": he.title(),
        "him": him,
        "his": his,
    }
    openings, weights = zip(*_OPENINGS, strict=True)
    opening, frame = rng.choices(openings, weights)[0], rng.choice(_FRAMES)
    two = "{O}" in opening or "{F}" in frame
    ending = rng.choice(_ENDINGS + _ENDINGS_OF_TWO if two else _ENDINGS)
    if "{O}" in opening:
        frame = frame.replace("{F}", "{f}")
    if opening.startswith("It was a"):  # the day is there
        frame = _ONE_DAY.sub(lambda found: "That night, " if found[1] == "night" else "", frame)
    gap = rng.choice(("\n\n", ""))

    def fill(text: str) -> str:
        chosen = _CHOICE.sub(lambda found: rng.choice(found[1].split("/")), text).format(**values)
        return _ARTICLE.sub(r"\1n \2", chosen)

    parts = fill(f"{opening}{gap}{frame} | {ending} |").split("|")
    chat = fill(f" {name}, a {mood} {hero} {place}{_ASSISTANT}")
    draws = rng.choice((0.5, 0.6, 0.7)), 0.9
    return StoryPrompt(chat, tuple(map(_sentence, parts)), *draws)


def _sentence(part: str) -> str:
    part = part.strip(" ")
    return _FIRST.sub(lambda found: found[0].upper(), part)
