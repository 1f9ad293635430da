"""Finds checkpoints: the demo pair, folders, GGUF files, the local Hugging Face cache, Ollama's store."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edge_tui.engine.checkpoints.gguf.choice import choose, files_in, split_tag
from edge_tui.engine.checkpoints.stores import OLLAMA, ollama_file
from edge_tui.engine.checkpoints.weight_files import (
    CheckpointError,
    IncompleteCheckpoint,
    is_gguf,
    lone_file_error,
    missing_safetensors_error,
)
from edge_tui.util.user_file import error_reason, expand, is_folder

DEMO = Path(__file__).parents[2] / "demo"
DEMO_MODELS = ("expert", "amateur")

_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?")
_REVISION = re.compile(r"[0-9a-zA-Z_-]{1,64}")


def cache_root() -> Path:
    """Returns the Hugging Face cache by the environment as it is now; its own library freezes it."""
    env = os.environ
    if cache := env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE"):
        return expand(cache)
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")  # noqa: PTH118
    return expand(home) / "hub"


def repository_folder(name: str) -> Path:
    """Returns the folder of a repository in the cache, which need not be there."""
    return cache_root() / f"models--{name.replace('/', '--')}"


def offline() -> bool:
    """Tells whether the environment forbids downloads."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def snapshot(repository: Path) -> Path | None:
    """Returns a cached repository's snapshot that refs/main names, else the newest; None if none is."""
    try:
        revision = (repository / "refs" / "main").read_text().strip()
    except (OSError, UnicodeDecodeError):
        revision = ""
    if _REVISION.fullmatch(revision) and (repository / "snapshots" / revision).is_dir():
        return repository / "snapshots" / revision
    try:
        folders = [path for path in (repository / "snapshots").iterdir() if path.is_dir()]
        return max(folders, key=lambda path: path.stat().st_mtime, default=None)
    except OSError:
        return None


def find(name: str) -> Path:
    """Returns the folder, or the GGUF file, of a model that a user named.

    Args:
        name: "demo/expert"; the path of a folder or a GGUF file; a repository id; one of the last two with a
            tag, which chooses one of several GGUF files (`org/name:Q4_K_M`); "ollama:" and Ollama's name.

    Raises:
        CheckpointError: there is none.
    """
    family, _, which = name.partition("/")
    if family == "demo" and which in DEMO_MODELS:
        return DEMO / which
    if "\0" in name:
        raise CheckpointError(
            "A model's name cannot contain a NUL character; choose it from the models screen."
        )
    if name.startswith(OLLAMA):
        return ollama_file(name)
    try:
        folder = Path(name).expanduser()
        if name and folder.is_dir():
            return folder.absolute()
        if name and folder.is_file():
            if is_gguf(folder):
                return folder.absolute()
            raise lone_file_error(name, folder.absolute())
    except (OSError, RuntimeError) as error:  # no right to look, a name too long, no such home
        reason = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise CheckpointError(
            f"{name[:200]} cannot be looked at ({reason}); give a folder that can be read."
        ) from error
    untagged, tag = split_tag(name)
    if tag and (tagged := _folder(untagged, name)) is not None:
        try:
            return tagged / choose(untagged, files_in(tagged), tag)
        except OSError as error:
            raise CheckpointError(
                f"The folder {tagged} cannot be read ({error_reason(error)}); check its permissions."
            ) from error
    if (repository := _folder(name, name)) is not None:
        return repository
    raise CheckpointError(
        f"There is no folder or file {name!r}, and it is not a repository id; "
        "give a folder, or an id like Qwen/Qwen2.5-0.5B-Instruct."
    )


def _folder(name: str, asked: str) -> Path | None:
    """Returns a folder by its path or by its repository id; None for what is neither.

    Args:
        name: The folder or repository.
        asked: What the user named, with a tag.

    Raises:
        IncompleteCheckpoint: the repository is not in the cache.
    """
    if name.startswith(("/", ".", "~")) or not _REPOSITORY.fullmatch(name) or ".." in name:
        folder = Path(name).expanduser()
        return folder.absolute() if name != asked and is_folder(folder) else None
    if (cached := snapshot(repository_folder(name))) is not None:
        return cached
    if name != asked and is_folder(Path(name)):
        return Path(name).absolute()
    if offline():
        raise IncompleteCheckpoint(
            f"{asked} is not in the local cache {cache_root()} and HF_HUB_OFFLINE forbids downloading it; "
            "unset HF_HUB_OFFLINE or give a folder."
        )
    raise IncompleteCheckpoint(
        f"{asked} is not in the local cache {cache_root()}; "
        f"fetch it with 'edge-tui models pull {asked}' or give a folder."
    )


def missing_config_error(name: str, path: Path) -> CheckpointError:
    """Explains a folder without config.json; in the cache its download was not finished."""
    present = [file.name for file in path.iterdir()]
    if "model_index.json" in present:
        return CheckpointError(f"{name} is a diffusion pipeline, which makes images; choose a text model.")
    weights = any(file.endswith(".safetensors") for file in present)
    known = weights and "adapter_config.json" not in present
    if not known and (other := missing_safetensors_error(name, present)) is not None:
        return other
    if path.parent.parent == repository_folder(name):
        return IncompleteCheckpoint(
            f"{name} is incomplete in the local cache: config.json is missing; "
            f"fetch it with 'edge-tui models pull {name}'."
        )
    if not present:
        return CheckpointError(f"{name} is an empty folder; give one that holds a model's files.")
    return CheckpointError(
        f"{name} has no config.json in {path}; give the folder that holds the model's files."
    )
