"""Written stories hold their thread: each fault of a writer's sentence is named, and a near one is kept."""

from __future__ import annotations

import pytest

from tools.stories.filters import clean
from tools.stories.prompts import StoryPrompt
from tools.stories.thread import lost_thread, own_text

PARTS = (
    "Once upon a time, there was a happy girl named Mia. She liked to",
    "\n\nOne day, Mia lost her kite in",
    "She looked under",
    "Lucy the owl came and looked behind",
    '"Thank you," said Mia. They',
    "Mia smiled and",
    "",
)
OWN = (
    "sing and dance.",
    "the big garden.",
    "all the chairs and felt sad.",
    "a tall tree.",
    "went home together!",
    "gave Lucy a red apple.",
)
OPENING, PLACE, UNDER, BEHIND, HOME, END = range(6)


def fault(at: int, sentence: str, parts: tuple[str, ...] = PARTS) -> str:
    """Name the fault of the story with one of its writer's sentences in another's place."""
    own = (*OWN[:at], sentence, *OWN[at + 1 :], "")
    text = " ".join(f"{part} {said}" for part, said in zip(parts, own, strict=True))
    return lost_thread(clean(text.replace(" ,", ",").strip()), StoryPrompt(" Mia", parts, 0.5, 0.1))


def with_part(at: int, part: str) -> tuple[str, ...]:
    """Return the parts with one in another's place."""
    return (*PARTS[:at], part, *PARTS[at + 1 :])


def test_a_story_that_holds_is_kept() -> None:
    assert fault(0, OWN[0]) == ""


@pytest.mark.parametrize(
    ("at", "bad", "reason", "near"),
    [
        (UNDER, ".", "empty", "ice."),
        (UNDER, "it.", "empty", "it again."),
        (UNDER, "and saw her.", "empty", "all and saw her."),
        (UNDER, ", the bed.", "empty", "the bed, too."),
        (UNDER, "the " * 8 + "bed.", "long", "the " * 7 + "bed."),
        (BEHIND, "a tree of Anna.", "stranger", "a tree of Mia."),
        (UNDER, "the hat of Lucy.", "stranger", "the hat of Mia."),
        (BEHIND, "his tree.", "pronoun", "her tree."),
        (BEHIND, "him too.", "pronoun", "it too."),
        (UNDER, "the bed by the bed.", "twice", "the bed by the door."),
        (UNDER, "the bed and looked again.", "twice", "the bed and saw more."),
        (END, "hugged Lucy and Lucy danced.", "twice", "hugged Lucy and danced."),
        (END, "then Mia sang.", "twice", "then Lucy sang."),
        (UNDER, "a bed which was wet.", "description", "a bed which fell."),
        (UNDER, "a bed, and she was a good friend.", "description", "a bed, and she was good."),
        (BEHIND, "Mia the kind.", "description", "the kind Mia."),
        (OPENING, "play, and one day it rained.", "description", "play all day if it rained."),
        (UNDER, "a old bed.", "slip", "an old bed."),
        (UNDER, "the bed because of the.", "slip", "the bed because of Mia."),
        (UNDER, "the tall.", "slip", "the tall bed."),
        (UNDER, "it's bed.", "slip", "its bed."),
        (END, "'s dress was red.", "slip", "her dress was red."),
        (OPENING, "fly a kite.", "opening", "fly a balloon."),
        (END, "did not sleep.", "ending", "did sleep."),
        (UNDER, "the bed, happy and sad.", "opposite", "the bed, tired and sad."),
        (UNDER, "a tall tree.", "again", "a tall chair."),
    ],
)
def test_a_fault_is_named_and_a_near_sentence_is_kept(at: int, bad: str, reason: str, near: str) -> None:
    assert fault(at, bad) == reason
    assert fault(at, near) == ""


@pytest.mark.parametrize(("word", "most"), [("tree", 2), ("kite", 3)])
def test_a_word_that_is_given_may_be_said_once_more(word: str, most: int) -> None:
    parts = (*PARTS[:1], "Lucy saw", *PARTS[2:6], "Mia held her kite and", "")
    own = ("sing.", f"a {word}.", f"the {word}.", f"her {word}.", f"had that {word}.", "ran.", "sang.")
    for said in range(1, 5):
        sentences = (*(sentence if at <= said else "it too." for at, sentence in enumerate(own)), "")
        text = " ".join(f"{part} {sentence}" for part, sentence in zip(parts, sentences, strict=True))
        reason = lost_thread(clean(text.strip()), StoryPrompt("", parts, 0.5, 0.1))
        assert reason == ("again" if said > most else "")


@pytest.mark.parametrize(
    ("found", "his", "reason"),
    [
        ("a little fox and saw", "his hat.", ""),
        ("Lucy the fox and saw", "his hat.", "pronoun"),
        ("her kite and saw", "her father and his hat.", ""),
    ],
)
def test_a_stranger_has_any_sex(found: str, his: str, reason: str) -> None:
    assert fault(UNDER, his, with_part(UNDER, f"She found {found}")) == reason


def test_what_a_writer_wrote_is_found_between_the_parts() -> None:
    whole = " ".join(f"{part} {said}" for part, said in zip(PARTS, (*OWN, ""), strict=True)).strip()
    assert own_text(clean(whole), StoryPrompt("", PARTS, 0.5, 0.1)) == " ".join(OWN)
    assert own_text(clean(whole), StoryPrompt("", with_part(HOME, "Mia"), 0.5, 0.1)) == ""


def test_a_story_of_other_parts_is_refused() -> None:
    whole = " ".join(f"{part} {said}" for part, said in zip(PARTS, (*OWN, ""), strict=True)).strip()
    assert lost_thread(clean(whole), StoryPrompt("", with_part(HOME, "Mia"), 0.5, 0.1)) == "parts"
    assert lost_thread(clean(whole + " The end."), StoryPrompt("", PARTS, 0.5, 0.1)) == "parts"
    assert lost_thread(clean(whole[:-20]), StoryPrompt("", PARTS, 0.5, 0.1)) == "parts"
