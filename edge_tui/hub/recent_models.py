"""Remembers the models that were used last, in a file of the state folder.

Nothing here raises: where the file cannot be read or written, no model is remembered.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from edge_tui.util.atomic_write import replace_file
from edge_tui.util.logs import state_folder
from edge_tui.util.user_file import read_text

if TYPE_CHECKING:
    from pathlib import Path

MAX_NAMES = 50


def names() -> list[str]:
    """Returns the names that models were loaded by, the last one first."""
    try:
        stored = json.loads(read_text(_file()))
    except (OSError, ValueError, RecursionError):
        return []
    return [name for name in stored if isinstance(name, str)] if isinstance(stored, list) else []


def remember(name: str) -> None:
    """Puts a model first."""
    fresh = [name, *(other for other in names() if other != name)][:MAX_NAMES]
    with suppress(OSError):
        replace_file(_file(), json.dumps(fresh))


def _file() -> Path:
    return state_folder() / "recent-models.json"
