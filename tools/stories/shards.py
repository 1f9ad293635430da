"""Keeps stories as they are written in JSON lines, a shard at a time, so that writing can stop and go on.

A shard appears whole or not at all. The index says what made the stories: other stories in the same folder
would make a corpus that nothing can make again.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.util.atomic_write import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterator

_INDEX = "index.json"


@dataclass(frozen=True, slots=True)
class Story:
    """Holds a story as it was written.

    Attributes:
        number: Of its prompt.
        text: With its opening.
        ended: False if it was cut off.
        tokens: Of the model that wrote it.
    """

    number: int
    text: str
    ended: bool
    tokens: int


class Shards:
    """Appends stories to a folder and reads them back.

    Args:
        folder: Made if need be.
        made_by: What the stories depend on, as JSON holds it.
        size: Stories of a shard.

    Raises:
        ValueError: the folder has stories that something else made.
    """

    def __init__(self, folder: Path, made_by: dict[str, Any], size: int = 4096) -> None:
        self._folder, self._size = folder, size
        self._open: list[Story] = []
        folder.mkdir(parents=True, exist_ok=True)
        index = folder / _INDEX
        if index.exists():
            state = json.loads(index.read_text(encoding="utf-8"))
            if state["made_by"] != made_by:
                raise ValueError(f"{folder} has stories of {state['made_by']}, not of {made_by}.")
            self._shards: list[dict[str, Any]] = state["shards"]
        else:
            self._shards = []
        self._made_by = made_by

    def add(self, story: Story) -> None:
        """Adds a story; the shard is written when it is full."""
        self._open.append(story)
        if len(self._open) >= self._size:
            self.flush()

    def flush(self) -> None:
        """Writes what was added, as a shard of its own."""
        if not self._open:
            return
        name = f"shard-{len(self._shards):05}.jsonl"
        lines = "".join(json.dumps(asdict(story)) + "\n" for story in self._open)
        replace_file(self._folder / name, lines)
        entry = {"file": name, "stories": len(self._open), "tokens": sum(s.tokens for s in self._open)}
        self._shards.append(entry)
        replace_file(
            self._folder / _INDEX, json.dumps({"made_by": self._made_by, "shards": self._shards}, indent=1)
        )
        self._open = []

    @property
    def tokens(self) -> int:
        """Tokens of all shards."""
        return sum(shard["tokens"] for shard in self._shards)

    def numbers(self) -> set[int]:
        """Returns the numbers of the stories that are on disk."""
        return {story.number for shard in _listed(self._folder) for story in read_shard(shard)}


def shard_files(folder: Path) -> list[Path]:
    """Lists the shards of all writers that have a folder there, in a fixed order."""
    return [shard for index in sorted(folder.glob(f"*/{_INDEX}")) for shard in _listed(index.parent)]


def read_made_by(folder: Path) -> dict[str, Any]:
    """Reads what made the stories of a writer's folder.

    Raises:
        OSError: the folder has no index.
    """
    made: dict[str, Any] = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["made_by"]
    return made


def read_shard(file: Path) -> Iterator[Story]:
    """Yields the stories of one shard.

    Raises:
        OSError: the shard is missing.
    """
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            yield Story(**json.loads(line))


def _listed(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.exists():
        return []
    return [folder / shard["file"] for shard in json.loads(index.read_text(encoding="utf-8"))["shards"]]
