"""Keeps how far each lesson is, in a file of the state folder."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from edge_tui.util.atomic_write import replace_file
from edge_tui.util.logs import state_folder
from edge_tui.util.user_file import read_text

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Progress:
    """Holds how far a reader is.

    Attributes:
        steps: Steps that are done, by lesson.
        current: The lesson on the screen, "" for none.
        offered: True once the lessons were offered.
        answers: The newest choice of each question, by lesson and number of the step; files of older
            versions have none.
    """

    steps: dict[str, int] = field(default_factory=dict)
    current: str = ""
    offered: bool = False
    answers: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Progress:
        """Reads the file; a missing or damaged one is a fresh start."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            state = json.loads(read_text(_path()))
            steps = {str(key): int(step) for key, step in state["steps"].items()}
            answers = {
                str(key): {str(step): str(text) for step, text in chosen.items()}
                for key, chosen in state.get("answers", {}).items()
            }
            return cls(steps, str(state["current"]), bool(state["offered"]), answers)
        return cls()

    def save(self) -> None:
        """Writes the file; a folder that cannot be written forgets at the end of the program."""
        with suppress(OSError):
            _path().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(_path(), json.dumps(asdict(self)))


def _path() -> Path:
    return state_folder() / "lessons.json"
