"""Makes the prompt of each story out of its number: names, a place, things, a feature, and the first words.

Chance decides each part by itself, so that the same story is seldom asked for twice: as TinyStories (Eldan
and Li, arXiv 2305.07759) found, a small model writes the same few stories unless its prompt is made anew.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple


def _list(text: str) -> tuple[str, ...]:
    return tuple(text.split(", "))


GIRLS = _list(
    "Mia, Lily, Anna, Emma, Lucy, Zoe, Ella, Ruby, Nora, Rosie, Tara, Sara, Maya, Lena, Clara, Molly, "
    "Daisy, Ivy, Hana, Amy, Julia, Nina, Poppy, Alice, Kate, Jenny, Bella, Ada, Mina, Tess, Luna, "
    "Sarah, Elena, Sophie, Lila, Maria, Mary, Emily, Rose, Leah, Ellie, Ruth, Maggie, Eva, Olivia"
)
BOYS = _list(
    "Ben, Tom, Max, Leo, Sam, Jack, Tim, Oscar, Noah, Finn, Adam, Luke, Toby, Peter, Omar, Hugo, "
    "Billy, Nico, Danny, Theo, Eli, Felix, Ravi, Kofi, Henry, Joe, Milo, Charlie, Jamie, Pip, Jake, "
    "Alex, John, Tommy, Timmy, Ethan, Lucas, Simon, Freddy, Amir, Whiskers, Fluffy, Rufus, Bobby"
)
NAMES = (*GIRLS, *BOYS)
"""Plain first names; a story that names anybody else is not kept."""

_ANIMALS = _list(
    "bear, rabbit, fox, mouse, duck, frog, squirrel, owl, cat, dog, pony, lamb, hen, turtle, "
    "hedgehog, elephant, lion, monkey, penguin, whale, bee, snail, pig, goat, donkey, kitten, puppy, "
    "bird, crow, otter"
)
_PLACES = _list(
    "a farm, a small village, the woods, the beach, a big garden, a school, a busy market, a hill, an "
    "old house, the park, a lake, a river, the kitchen, a library, the zoo, a snowy field, a little "
    "island, a train, a tall tree, the town, the mountains, a boat, a toy shop, a bakery, a meadow, "
    "the attic, a tent, a bridge, a pond, the moon"
)
_THINGS = _list(
    "kite, ball, key, hat, box, book, lamp, boat, bell, drum, cake, apple, shoe, map, flower, stone, "
    "feather, cup, blanket, basket, ladder, bucket, button, candle, carrot, clock, coat, coin, "
    "cookie, crayon, door, egg, fence, fish, flute, honey, ice, jar, leaf, letter, mirror, nut, "
    "paint, pear, pie, pillow, rain, ring, robot, rope, sand, scarf, seed, shell, sled, snow, soup, "
    "spoon, star, swing, tree, umbrella, wagon, wheel, whistle, wind, balloon, bike, bread, bridge, "
    "broom, cloud, doll"
)
_MOODS = _list(
    "happy, sad, brave, shy, tired, curious, kind, proud, lonely, scared, silly, quiet, angry, "
    "hungry, patient, gentle, clumsy, careful, lazy, clever"
)
_FEATURES = (
    "Somebody is lost and comes home.",
    "Two friends quarrel and make up.",
    "Something breaks and is mended.",
    "It has some talking between the characters.",
    "Something surprising happens in the middle.",
    "It ends with everybody laughing.",
    "Somebody learns to say sorry.",
    "Somebody is afraid at first and then brave.",
    "A small animal needs help.",
    "Somebody makes a mistake and tells the truth.",
    "It ends quietly at bedtime.",
    "A plan goes wrong in a funny way.",
    "Somebody gives a gift.",
    "It rains, and they have to think of something.",
    "Somebody has to wait for a long time.",
    "Somebody learns a new skill.",
    "There is a secret.",
    "A friend helps a friend.",
)
_OPENINGS = (
    ("Once upon a time", 9),
    ("Once upon a time there was a {mood} {hero} named {name}.", 3),
    ("One day, {name}", 3),
    ("{name} was a {mood} {hero}.", 2),
    ("{name} and {friend}", 2),
    ("It was a", 1),
    ("One morning, {name} woke up", 1),
    ("There was once a {mood} {hero}", 1),
    ("In {place}, there lived", 1),
)
_ARTICLE = re.compile(r"\b([Aa]) ([aeiou])")
_SYSTEM = "You are a writer of children's stories."


class StoryPrompt(NamedTuple):
    """Describes what a story is asked for by.

    Attributes:
        chat: The text that the model reads, up to and with the opening.
        opening: First words of the story, which the model has to go on from.
        temperature, top_p: Of its draws.
    """

    chat: str
    opening: str
    temperature: float
    top_p: float


def story_prompt(seed: int, number: int) -> StoryPrompt:
    """Makes the prompt of one story; the same seed and number make the same."""
    rng = random.Random(f"{seed}/{number}")
    name, friend = rng.sample(NAMES, 2)
    child = "girl" if name in GIRLS else "boy"
    parts = {
        "name": name,
        "friend": friend,
        "hero": rng.choice((child, child, rng.choice(_ANIMALS))),
        "place": rng.choice(_PLACES),
        "mood": rng.choice(_MOODS),
    }
    second = rng.choice((f" and {friend}", f" and a {rng.choice(_ANIMALS)} named {friend}", "", ""))
    with_thing = rng.choice((f" and a {rng.choice(_THINGS)}", ""))
    ask = (
        "Write a short children's story about a {mood} {hero} named {name}{second}{thing}. "
        "It takes place in or near {place}. {feature}"
    ).format(thing=with_thing, second=second, feature=rng.choice(_FEATURES), **parts)
    ask = _ARTICLE.sub(r"\1n \2", ask)
    openings, weights = zip(*_OPENINGS, strict=True)
    opening = rng.choices(openings, weights)[0].format(**parts)
    opening = _ARTICLE.sub(r"\1n \2", opening)
    chat = (
        f"<|im_start|>system\n{_SYSTEM}<|im_end|>\n<|im_start|>user\n{ask}<|im_end|>\n"
        f"<|im_start|>assistant\n{opening}"
    )
    return StoryPrompt(chat, opening, rng.choice((0.7, 0.8, 0.9)), rng.choice((0.9, 0.95)))
