"""Makes a corpus of written stories: those that pass the filters and say something new, in three splits."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tools.stories.duplicates import Duplicates
from tools.stories.filters import WordList, clean, lower_words, refusal, unknown_words
from tools.stories.shards import Story, read_stories

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Split = Literal["train", "validation", "heldout"]
CORPUS = "stories.jsonl"


def split_of(text: str) -> Split:
    """Tells which split a story belongs to, by a hash of its text: 1 % held out, 1 % for validation."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 100
    return "heldout" if bucket == 0 else "validation" if bucket == 1 else "train"


def vocabulary_words(tokens: Iterable[str]) -> set[str]:
    """Returns the lower-case words that a byte-level tokenizer for English has as single tokens."""
    return {
        token[1:] for token in tokens if token[:1] == "Ġ" and token[1:].isascii() and token[1:].isalpha()
    } & {token[1:] for token in tokens if token[1:].islower()} | {"a", "i"}


def filter_stories(folder: Path, vocabulary: Iterable[str], workers: int = 1) -> Counter[str]:
    """Writes the stories of a folder that are kept to `stories.jsonl` there, and counts the others by reason.

    Args:
        folder: Of shards.
        vocabulary: Tokens of the tokenizer that wrote them.
        workers: Processes.

    Returns:
        Stories by reason; "" counts those that were kept.
    """
    counts: Counter[str] = Counter()
    known, new = WordList(vocabulary_words(list(vocabulary))), Duplicates()
    passed: list[str] = []
    with ProcessPoolExecutor(workers) as pool:
        for text, reason in pool.map(_judge, read_stories(folder), chunksize=256):
            counts[reason] += bool(reason)
            if not reason:
                known.count(lower_words(text))
                passed.append(text)
    with (folder / CORPUS).open("w", encoding="utf-8") as out:
        for text in passed:
            reason = "word" if unknown_words(text, known) else "" if new.add(text) else "duplicate"
            counts[reason] += 1
            if not reason:
                out.write(json.dumps({"text": text}) + "\n")
    return +counts


def corpus(folder: Path, split: Split) -> Iterator[str]:
    """Yields the kept stories of one split.

    Raises:
        OSError: the stories were not filtered yet.
    """
    with (folder / CORPUS).open(encoding="utf-8") as lines:
        for line in lines:
            text = json.loads(line)["text"]
            if split_of(text) == split:
                yield text


def _judge(story: Story) -> tuple[str, str]:
    text = clean(story.text)
    return text, refusal(text, story.ended)
