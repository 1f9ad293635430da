"""Makes the prompt of each story out of its number, and its plot: sentences that the story has for certain.

The writer is too small to think of a story that holds together, and says the same few things unless its
prompt is made anew (as TinyStories found, Eldan and Li, arXiv 2305.07759). So chance decides a hero, a
friend, a place and a plot from plots.txt; what stands between the sentences of the plot is the writer's.
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
    "spoon, star, swing, tree, umbrella, wagon, wheel, whistle, balloon, bike, "
    "broom, cloud, doll"
)
_MOODS = _list(
    "happy, sad, brave, shy, tired, curious, kind, proud, lonely, scared, silly, quiet, angry, "
    "hungry, patient, gentle, clumsy, careful, lazy, clever"
)
_PLOTS = tuple(Path(__file__).with_name("plots.txt").read_text(encoding="ascii").splitlines())
_CHOICE = re.compile(r"\[([^]]*)\]")
_OPENINGS = (
    ("Once upon a time, there was a {m} {h} named {n}. {He} lived {p}. |", 4),
    ("Once upon a time, there was a {m} {h} named {n}. {He} lived {p}.", 2),
    ("Once upon a time, there was a {h} named {n} who lived {p}. |", 3),
    ("Once upon a time, a {m} {h} named {n} lived {p}.", 3),
    ("Once upon a time, {n} the {h} was {p}. |", 1),
    ("{n} was a {m} {h}. {He} lived {p}. |", 3),
    ("There was once a {m} {h} named {n}. |", 2),
    ("{n} the {h} lived {p}.", 2),
    ("It was a [sunny/warm/cold/windy/bright] day. {n} the {h} was {p}. |", 2),
    ("{n} and {F} were {p}. |", 2),
    ("{n} woke up early. {He} felt {m}.", 1),
)
_ARTICLE = re.compile(r"\b([Aa]) ([aeiou])")
_USER = "<|im_end|>\n<|im_start|>user\nWrite a short and simple story for small children about"
_ASSISTANT = ".<|im_end|>\n<|im_start|>assistant\n"
_STORY = """Once upon a time, there was a shy mouse named Sue. She lived near a big lake. Every day she \
looked at the water and wished that she could sail.

One day, Sue found a little boat in the grass. It had a hole in it, and Sue was sad. "Do not cry," said Bob \
the bird. "I can help you." He brought a leaf and some mud. They put the leaf over the hole and the mud on \
the leaf. Then they pushed the boat into the water. It did not sink!

Sue and Bob sailed until the sun went down. "Thank you, Bob," said Sue, and gave him a big hug. Then they \
went home and ate hot soup."""
BEFORE = (
    "<|im_start|>system\nYou write short stories for small children."
    f"{_USER} a shy mouse named Sue and a bird named Bob{_ASSISTANT}{_STORY}{_USER}"
)
"""What every prompt begins with: how such a story reads."""


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
    animal, mood = rng.choice(_ANIMALS), rng.choice(_MOODS)
    first = rng.choice((f"{his} friend {friend}", f"{friend} the {animal}"))
    values = {
        "n": name,
        "h": hero,
        "m": mood,
        "p": rng.choice(_PLACES),
        "t": rng.choice(_THINGS),
        "f": friend,
        "F": first,
        "FF": first[0].upper() + first[1:],
        "he": he,
        "He": he.title(),
        "him": him,
        "his": his,
    }
    openings, weights = zip(*_OPENINGS, strict=True)
    opening, plot = rng.choices(openings, weights)[0], rng.choice(_PLOTS)
    if "{F}" in opening:
        plot = plot.replace("{FF}", "{f}").replace("{F}", "{f}")
    text = _CHOICE.sub(lambda found: rng.choice(found[1].split("/")), f"{opening}\n\n{plot}").format(**values)
    parts = tuple(part.strip(" ") for part in _ARTICLE.sub(r"\1n \2", text).split("|"))
    about = _ARTICLE.sub(r"\1n \2", f" a {mood} {hero} named {name} and a friend named {friend}")
    return StoryPrompt(about + _ASSISTANT, parts, rng.choice((0.5, 0.6, 0.7)), rng.choice((0.9, 0.95)))
