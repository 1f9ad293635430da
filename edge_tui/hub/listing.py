"""Lists the models on this machine: demo pair, Hugging Face cache, folders, and those of other programs.

Nothing is loaded: a checkpoint's config and the headers of its weight files take a few milliseconds. One
that cannot be used is listed with the reason; a half-downloaded checkpoint is never ready. Importing this
module loads neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints import stores
from edge_tui.engine.checkpoints.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from edge_tui.engine.checkpoints.gguf.choice import files_in, tag_of
from edge_tui.engine.checkpoints.gguf.model import models_in
from edge_tui.engine.checkpoints.locate import DEMO_MODELS, cache_root, repository_folder, snapshot
from edge_tui.engine.checkpoints.weight_files import IncompleteCheckpoint
from edge_tui.engine.models.loader import tier_of
from edge_tui.util.user_file import exists, expand

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True, slots=True)
class Listing:
    """Describes one checkpoint of the list.

    Attributes:
        name: For loading it: "demo/expert", a repository id, `org/name:Q4_K_M`, `ollama:llama3.2:3b`, a path.
        origin: "demo", "cache", "folder", "ollama", or "hub" for one that is not here yet.
        architecture: As in config.json; "" if it cannot be used.
        tier: "flat" or "transformers"; "" if it cannot be used.
        bytes: Of the stored weights.
        parameters: Number of weights.
        context: Most positions it was made for, 0 if it states none.
        dtype: Stored dtype, "int8" or "4bit" for weights that are stored quantised, "GGUF Q4_K".
        chat: True if it has a chat template.
        refusal: The reason that it cannot be used, one sentence; "" if it can.
        resumable: True if a download would make it whole.
    """

    name: str
    origin: str
    architecture: str = ""
    tier: str = ""
    bytes: int = 0
    parameters: int = 0
    context: int = 0
    dtype: str = ""
    chat: bool = False
    refusal: str = ""
    resumable: bool = False

    @property
    def ready(self) -> bool:
        """True if it can be loaded."""
        return not self.refusal


def local_models(folders: Iterable[str | Path] = ()) -> list[Listing]:
    """Lists every checkpoint on this machine: demo pair, cache, Ollama's, then folders.

    Args:
        folders: Each is a checkpoint, or holds checkpoints up to two levels below it. Those of LM Studio and
            llama.cpp follow.
    """
    listings = [describe_local(f"demo/{which}", "demo") for which in DEMO_MODELS]
    for name in _cached():
        listings += [describe_local(each, "cache") for each in _tagged(name) or [name]]
    listings += [describe_local(name, "ollama") for name in stores.ollama_names()]
    searched = [(expand(folder), 2) for folder in folders] + [(folder, 3) for folder in stores.folders()]
    paths = dict.fromkeys(path for folder, depth in searched for path in _checkpoints(folder, depth))
    return listings + [describe_local(str(path), "folder") for path in paths]


def listing_of(checkpoint: Checkpoint, origin: str = "cache") -> Listing:
    """Describes a checkpoint that can be used.

    Raises:
        CheckpointError: no tier runs it.
    """
    return Listing(
        name=checkpoint.name,
        origin=origin,
        architecture=checkpoint.architecture,
        tier=tier_of(checkpoint),
        bytes=checkpoint.bytes,
        parameters=checkpoint.parameters,
        context=checkpoint.context,
        dtype=checkpoint.format,
        chat=checkpoint.chat_template is not None,
    )


def describe_local(name: str, origin: str) -> Listing:
    """Describes a checkpoint on this machine; one that cannot be used by its refusal."""
    try:
        return listing_of(open_checkpoint(name), origin)
    except CheckpointError as error:
        resumable = origin == "cache" and isinstance(error, IncompleteCheckpoint)
        return Listing(name, origin, refusal=str(error), resumable=resumable)


def _cached() -> Iterator[str]:
    """Yields the repository ids in the cache, in alphabetical order; the cache if it cannot be read."""
    try:
        cached = _subfolders(cache_root())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError:
        yield str(cache_root())  # its line in the list says why it cannot be read
        return
    for folder in cached:
        kind, _, name = folder.name.partition("--")
        if kind == "models" and name:
            yield name.replace("--", "/", 1)


def _tagged(name: str) -> list[str]:
    """Lists the names of a cached repository's GGUF models, each with the tag that chooses it.

    Empty where the repository holds one model, which its own name chooses.
    """
    folder = snapshot(repository_folder(name))
    try:
        files = files_in(folder) if folder is not None else []
    except OSError:
        return []
    if len(files) == 1 and "/" not in files[0]:
        return []
    tags = [tag_of(file) for file in files]
    return [
        f"{name}:{tag if tags.count(tag) == 1 else Path(file).stem}"
        for tag, file in zip(tags, files, strict=True)
    ]


def _checkpoints(folder: Path, depth: int) -> Iterator[Path]:
    """Yields folders with a config.json, GGUF files elsewhere, and folders that cannot be read, by name."""
    try:
        if exists(folder / "config.json") or folder.is_file():
            yield folder
            return
        inside = [*_subfolders(folder), *models_in(folder)] if depth else []
    except FileNotFoundError:
        return
    except OSError:
        yield folder  # its line in the list says why it cannot be read
        return
    for inner in inside:
        yield from _checkpoints(inner, depth - 1)


def _subfolders(folder: Path) -> list[Path]:
    """Lists the folders in a folder, by name.

    Raises:
        OSError: it cannot be read.
    """
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
