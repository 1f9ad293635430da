"""Written stories: what is kept of them, and that writing can stop and go on."""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tools.stories import prompts
from tools.stories.corpus import CORPUS, corpus, filter_stories, split_of
from tools.stories.duplicates import Duplicates, fingerprint
from tools.stories.filters import clean, refusal, strange_words
from tools.stories.pieces import model_file
from tools.stories.prompts import NAMES, story_prompt
from tools.stories.shards import Shards, Story, read_shard, shard_files
from tools.stories.thread import lost_thread
from tools.stories.words import base_words, is_simple, simple_tokens

SENTENCES = (
    "Once upon a time, Mia found a red kite under the old oak tree.",
    "She wanted to fly it, but the string was broken.",
    '"Can you help me?" she asked her friend Ben.',
    "Ben smiled and looked into his bag for something long and strong.",
    "He had a yellow ribbon that his mother gave him on Sunday.",
    "They tied the ribbon to the kite and ran up the hill together.",
    "The wind was warm, and soon the kite danced high above the clouds.",
    "When it was dark, they walked home and were very happy.",
)
STORY = " ".join(SENTENCES)


def edited(number: int, sentence: str) -> str:
    """Return the story with one sentence in another's place."""
    return " ".join((*SENTENCES[:number], sentence, *SENTENCES[number + 1 :]))


def test_a_whole_story_is_kept() -> None:
    assert refusal(STORY, ended=True) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (STORY[:-1], "cut off"),
        (STORY + " And then", "cut off"),
        (" ".join(SENTENCES[:3]), "length"),
        (" ".join([STORY] * 9), "length"),
        (edited(4, "He had a **yellow** ribbon that his mother gave him."), "marks"),
        (edited(4, "He had a café ribbon that his mother gave him."), "marks"),
        (edited(4, "He said <b>yes</b> to it."), "marks"),
        (edited(4, "He ran print(kite) on it."), "marks"),
        ("The Kite\n\n" + STORY, "heading"),
        (edited(2, '"Can you help me? she asked her friend Ben.'), "quotes"),
        (edited(7, "The word count is about sixty in all of these happy lines."), "chat"),
        (edited(7, "This story is about sharing and being kind to a friend."), "chat"),
        (" ".join((*SENTENCES, SENTENCES[5])), "loop"),
        (STORY + " They ran up and up and up" + " and up" * 40 + ".", "loop"),
        (edited(4, "He had a ribbon that that his mother gave him."), "loop"),
        (edited(5, "Ben and Ben tied the ribbon to the kite and ran up the hill."), "loop"),
        (edited(4, "He had a ribbon that Obama gave him on Sunday."), "name"),
        (edited(4, "He had a ribbon that Emma Stone gave him on Sunday."), "name"),
        (edited(4, "He had a ribbon that Mia Rose gave him on Sunday."), "name"),
        (edited(4, "He had a ribbon that Emma and Tom gave him on Sunday."), "name"),
        (edited(4, "He had seen it in Paris with his mother and his dog."), "name"),
        (edited(5, "Zorblatt tied the ribbon to the kite and ran up the hill."), "word"),
        (edited(5, "They tied the ribbon to a zeppelin and ran up the hill."), "word"),
    ],
)
def test_a_fault_is_named(text: str, reason: str) -> None:
    assert refusal(text, ended=True) == reason


def test_a_story_that_ran_out_of_room_is_cut_off() -> None:
    assert refusal(STORY, ended=False) == "cut off"


def test_a_story_may_end_in_speech() -> None:
    assert refusal(edited(7, 'It was dark, and they said, "We are very happy."'), ended=True) == ""


def test_typographic_marks_become_ascii() -> None:
    assert clean("“It’s  late” — said Tom…\n \nHe left.\n") == '"It\'s late" - said Tom...\n\nHe left.'


def test_strange_words_are_listed() -> None:
    assert strange_words("Zorblatt didn't tell Mia's mother that I'm a quaint bird.") == [
        "Zorblatt",
        "quaint",
    ]


@pytest.mark.parametrize(
    "word", ["walks", "flies", "stopped", "baking", "happiest", "ribbons", "windy", "the"]
)
def test_a_word_with_an_ending_is_simple(word: str) -> None:
    assert is_simple(word)


@pytest.mark.parametrize("word", ["quaint", "nestled", "st", "redd", "bustling"])
def test_other_words_are_not_simple(word: str) -> None:
    assert not is_simple(word)


def test_tokens_write_simple_words_alone() -> None:
    written = ["Ġkite", "Kite", "ĠKite", "ĠMia", ".", "'s"]
    others = [
        "kite",
        "ĠKITE",
        "ĠYou",
        "Ġpuppy",
        "Ġduckling",
        "Ġowls",
        "Ġgirl",
        "ĠOne",
        "Ġquaint",
        '."',
        "ĊĊ",
        "Ġ**",
        "I",
        "ing",
    ]
    tokens = [*written, *others]
    assert simple_tokens({token: at for at, token in enumerate(tokens)}) == list(range(len(written)))
    assert all(word.islower() or word == "I" for word in base_words())


def test_repeats_and_near_repeats_are_found() -> None:
    seen = Duplicates()
    assert seen.add(fingerprint(STORY))
    assert not seen.add(fingerprint(STORY))
    assert not seen.add(fingerprint(STORY.upper().replace(".", "!")))
    assert not seen.add(fingerprint(edited(4, "He had a piece of old rope.")))
    assert seen.add(
        fingerprint("A slow snail lived in a jar. It wanted to see the sea, so it went out one cold night.")
    )
    assert seen.add(fingerprint("Too short."))
    assert not seen.add(fingerprint("too short"))


@pytest.mark.parametrize("seed", range(5))
def test_a_half_new_story_is_new(seed: int) -> None:
    words = [chr(97 + n % 26) + chr(97 + n // 26) for n in range(400)]
    rng = random.Random(seed)
    rng.shuffle(words)
    seen = Duplicates()
    assert seen.add(fingerprint(" ".join(words[:200])))
    assert seen.add(fingerprint(" ".join(words[:100] + words[200:300])))


def test_the_same_number_asks_for_the_same_story_and_another_for_another() -> None:
    asked = [story_prompt(3, number) for number in range(200)]
    assert asked == [story_prompt(3, number) for number in range(200)]
    assert len({prompt.parts for prompt in asked}) == 200
    assert story_prompt(4, 0) != asked[0]
    for prompt in asked:
        assert not set("{}[]|") & set("".join(prompt.parts))
        assert strange_words(" ".join(prompt.parts)) == []
        assert prompt.parts[-1] == ""  # the writer has the last word
    assert 70 < sum(prompt.parts[0].startswith("Once upon a time") for prompt in asked) < 130
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("file", ["frames.txt", "lists.txt"])
def test_what_is_given_has_simple_words(file: str) -> None:
    given = (Path(prompts.__file__).parent / file).read_text()
    assert strange_words(re.sub(r"\{\w+\}('s)?|<\w+>|^\w+:", " ", given, flags=re.MULTILINE)) == []


def test_a_story_tells_the_day_once() -> None:
    begun = [parts for n in range(400) if (parts := story_prompt(3, n).parts)[0].startswith("It was a")]
    assert begun
    assert not [
        parts for parts in begun if re.search(r"One |On Monday|In the (spring|summer)|After ", parts[1])
    ]


def read_stories(folder: Path) -> list[Story]:
    return [story for shard in shard_files(folder) for story in read_shard(shard)]


def test_shards_are_read_back_and_written_on(tmp_path: Path) -> None:
    stories = [Story(n, f"Text {n}.", True, 3) for n in range(5)]
    shards = Shards(tmp_path / "a", {"seed": 1}, size=2)
    for story in stories[:3]:
        shards.add(story)
    assert read_stories(tmp_path) == stories[:2]  # the third waits for its shard
    shards.flush()
    again = Shards(tmp_path / "a", {"seed": 1}, size=2)
    assert again.numbers() == {0, 1, 2}
    for story in stories[3:]:
        again.add(story)
    assert read_stories(tmp_path) == stories
    assert again.tokens == 15
    with pytest.raises(ValueError, match="seed"):
        Shards(tmp_path / "a", {"seed": 2})


def test_a_torn_shard_is_not_read(tmp_path: Path) -> None:
    shards = Shards(tmp_path / "a", {})
    shards.add(Story(0, "A.", True, 1))
    shards.flush()
    (tmp_path / "a" / "shard-00001.jsonl").write_text('{"number": 1, "te')
    assert [story.number for story in read_stories(tmp_path)] == [0]


def written(number: int, *own: str) -> Story:
    """Return story number N of seed 1 with these sentences, one after each of its parts, in turn."""
    parts = story_prompt(1, number).parts
    sentences = [*(own[at % len(own)] for at in range(len(parts) - 1)), ""]
    text = " ".join(f"{part} {said}" for part, said in zip(parts, sentences, strict=True))
    return Story(number, text.strip(), True, 9)


OWN = ("jump there together.", "it too.", "what is over there.", "all of it.", "some more.", "run.")
OTHER = ("swim.", "some of those.", "more again and again.", "each of them soon.", "ice.", "sing and shine.")


def is_kept(story: Story) -> bool:
    text = clean(story.text)
    return not (refusal(text, True) or lost_thread(text, story_prompt(1, story.number)))


def test_the_corpus_is_what_passes_and_is_new_of_all_writers(tmp_path: Path) -> None:
    first, second, third = [story for n in range(80) if is_kept(story := written(n, *OWN))][:3]
    cut, lost = replace(second, ended=False), replace(third, text=third.text.replace("run.", "run with Zoe."))
    for writer in range(2):
        shards = Shards(tmp_path / f"writer-{writer}", {"seed": 1})
        for story in (first, cut, lost):
            shards.add(story)
        shards.flush()
    counts = filter_stories(tmp_path)
    assert counts == {"": 1, "duplicate": 1, "cut off": 2, "name": 2}
    texts = [json.loads(line)["text"] for line in (tmp_path / CORPUS).read_text().splitlines()]
    assert texts == [clean(first.text)]
    assert list(corpus(tmp_path, split_of(texts[0]))) == texts


def test_a_story_is_a_duplicate_by_what_its_writer_wrote(tmp_path: Path) -> None:
    numbers = [n for n in range(200) if is_kept(written(n, *OWN)) and is_kept(written(n, *OTHER))]
    first, *others = [n for n in numbers if len(story_prompt(1, n).parts) == len(OWN) + 1]
    shards = Shards(tmp_path / "writer-0", {"seed": 1})
    for story in (written(first, *OWN), written(first, *OTHER), written(others[0], *OWN)):
        shards.add(story)
    shards.flush()
    assert filter_stories(tmp_path) == {"": 2, "duplicate": 1}
    texts = [json.loads(line)["text"] for line in (tmp_path / CORPUS).read_text().splitlines()]
    assert texts == [clean(written(first, *own).text) for own in (OWN, OTHER)]


def test_splits_are_by_text() -> None:
    splits = [split_of(f"story {n}") for n in range(5000)]
    assert 25 < splits.count("heldout") < 80
    assert 25 < splits.count("validation") < 80


def test_a_model_in_pieces_is_joined_and_checked(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40
    (tmp_path / "m.gguf.sha256").write_text(hashlib.sha256(data).hexdigest() + "  -\n")
    for n in range(3):
        (tmp_path / f"m.gguf.0{n}").write_bytes(data[n * 4000 : (n + 1) * 4000])
    assert model_file(tmp_path).read_bytes() == data
    assert model_file(tmp_path) == tmp_path / "m.gguf"
    (tmp_path / "m.gguf").unlink()
    (tmp_path / "m.gguf.02").unlink()
    with pytest.raises(ValueError, match="2 pieces"):
        model_file(tmp_path)
    with pytest.raises(ValueError, match="neither"):
        model_file(tmp_path / "nowhere")
