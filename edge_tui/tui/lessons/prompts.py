"""Chooses the prompt that lessons run, by the text that the model was trained on."""

from __future__ import annotations

import re

from edge_tui.engine.checkpoints.locate import find
from edge_tui.engine.checkpoints.weight_files import CheckpointError
from edge_tui.util.user_file import read_text

CODE, STORY = "def fibonacci(n):", "Once upon a time"
_CODE = re.compile(r"^language: *\[?.*\bcode\b", re.M)


def lesson_prompt(model: str) -> str:
    """Returns the beginning of a program for a model whose card has the language "code", else of a story."""
    try:
        card = read_text(find(model) / "README.md")
    except (CheckpointError, OSError, ValueError):
        return STORY
    front = card.partition("\n---")[0]
    return CODE if _CODE.search(front) else STORY
