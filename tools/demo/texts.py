"""Names the texts that a demo pair can learn from: where they are, how they are split, how words are cut.

A hash puts each text into one of three splits: *train*, *validation* (chooses which weights are kept) and
*held-out* (read by `evaluate` and `judge_stories` alone). The tokenizer sees the train split only.
"""

from __future__ import annotations

import hashlib
import re
import sysconfig
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tools.demo.model import PYTHON_SHAPES, STORY_SHAPES, Shape
from tools.stories.corpus import corpus as stories

Split = Literal["train", "validation", "heldout"]

WORK = Path(__file__).resolve().parents[2] / ".demo-corpus"
EOS = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class TrainingText:
    """Describes a text to learn from.

    Attributes:
        folder: Where it lies unless another folder is named.
        read: Yields the texts of one split in a folder, in a fixed order.
        pattern: What the tokenizer never merges across.
        shapes: Of the models that learn it, by name; the expert's is the first.
        dropout: Of the expert; a text that is read many times needs more.
        prompt: A beginning to continue.
    """

    folder: Path
    read: Callable[[Path, Split], Iterator[str]]
    pattern: str
    shapes: Mapping[str, Shape]
    dropout: float
    prompt: str


def split_of(relative: str) -> Split:
    """Tells which split a Python file belongs to, by its path under ``Lib``.

    1 % is for validation, 2.5 % is held out. The path, not the text, is hashed: a held-out file stays held
    out in the next Python version.
    """
    bucket = int.from_bytes(hashlib.sha256(relative.encode()).digest()[:4]) % 1000
    return "heldout" if bucket < 25 else "validation" if bucket < 35 else "train"


def python_files(lib: Path, split: Split) -> Iterator[str]:
    """Yields the source files of one split of a Python's ``Lib`` folder, in path order.

    All ``*.py`` files, tests included, less: ``site-packages`` and byte-identical copies; the generated
    tables (charmap codecs and ``pydoc_data/topics.py``), which are data rather than code; and files that
    don't decode as their own coding line says.
    """
    seen: set[bytes] = set()
    for path in sorted(lib.rglob("*.py")):
        relative = path.relative_to(lib).as_posix()
        if re.search(r"(site|dist)-packages/|^pydoc_data/topics", relative):
            continue
        try:
            with tokenize.open(path) as file:
                text = file.read()
        except (SyntaxError, UnicodeError):
            continue  # deliberately broken test data
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        charmap = relative.startswith("encodings/") and "\ndecoding_" in text
        if not text or charmap or digest in seen:
            continue
        seen.add(digest)  # across splits: a held-out text never has a copy in training
        if split_of(relative) == split:
            yield text


_PYTHON = r"[^\s\p{L}\p{N}]?\p{L}+| \p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+[ \t]*|\s+(?!\S)|\s+"
_ENGLISH = r"'(?:s|t|re|ve|m|ll|d)\b| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"

TEXTS = {
    # A newline and the indentation after it are one token: a block opens in a single decision. They are never
    # glued to the colon before them, so a prompt may end in ``def f(n):``. One leading symbol joins a word
    # (``.append``, ``_name``), which suits dotted and snake_case names.
    "python": TrainingText(
        folder=Path(sysconfig.get_path("stdlib")),
        read=python_files,
        pattern=_PYTHON,
        shapes=PYTHON_SHAPES,
        dropout=0.15,
        prompt="def fibonacci(n):",
    ),
    # A word takes the blank before it along, so a prompt may end in a word.
    "stories": TrainingText(
        folder=WORK / "stories",
        read=stories,
        pattern=_ENGLISH,
        shapes=STORY_SHAPES,
        dropout=0.05,
        prompt="Once upon a time",
    ),
}
