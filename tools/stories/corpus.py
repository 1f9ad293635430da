"""Makes a corpus of written stories: those that pass the filters and say something new, in three splits."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tools.stories.duplicates import Duplicates, fingerprint
from tools.stories.filters import clean, refusal
from tools.stories.prompts import story_prompt
from tools.stories.shards import read_made_by, read_shard, shard_files
from tools.stories.thread import lost_thread, own_text

if TYPE_CHECKING:
    from collections.abc import Iterator

Split = Literal["train", "validation", "heldout"]
CORPUS = "stories.jsonl"


def split_of(text: str) -> Split:
    """Tells which split a story belongs to, by a hash of its text: 1 % held out, 1 % for validation."""
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % 100
    return "heldout" if bucket == 0 else "validation" if bucket == 1 else "train"


def filter_stories(folder: Path, workers: int = 1) -> Counter[str]:
    """Writes the stories of a folder that are kept to `stories.jsonl` there, and counts the others by reason.

    Args:
        folder: Of the writers' folders.
        workers: Processes; each judges whole shards.

    Returns:
        Stories by reason; "" counts those that were kept.
    """
    counts: Counter[str] = Counter()
    new = Duplicates()
    partial = (folder / CORPUS).with_suffix(".partial")
    with (
        ProcessPoolExecutor(workers, get_context("spawn")) as pool,
        partial.open("w", encoding="utf-8") as out,
    ):
        for refused, passed in pool.map(_judge, shard_files(folder)):
            counts.update(refused)
            for line, hashes in passed:
                if new.add(hashes):
                    counts[""] += 1
                    out.write(line)
                else:
                    counts["duplicate"] += 1
    partial.replace(folder / CORPUS)
    return counts


def corpus(folder: Path, split: Split) -> Iterator[str]:
    """Yields the kept stories of one split.

    Raises:
        OSError: the stories were not filtered yet.
    """
    with (folder / CORPUS).open(encoding="utf-8") as lines:
        for line in lines:
            story = json.loads(line)
            if story["split"] == split:
                yield story["text"]


def _judge(shard: Path) -> tuple[Counter[str], list[tuple[str, frozenset[int]]]]:
    """Returns the refused stories by reason, and the others' lines with fingerprints of what was written."""
    refused: Counter[str] = Counter()
    passed = []
    seed = read_made_by(shard.parent)["seed"]
    for story in read_shard(shard):
        text = clean(story.text)
        prompt = story_prompt(seed, story.number)
        reason = refusal(text, story.ended) or lost_thread(text, prompt)
        if reason:
            refused[reason] += 1
        else:
            line = json.dumps({"split": split_of(text), "text": text}) + "\n"
            passed.append((line, fingerprint(own_text(text, prompt))))
    return refused, passed
