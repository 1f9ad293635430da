"""Finds the models that Ollama, LM Studio and llama.cpp keep on this machine; all of them are GGUF files.

Ollama names them by manifests: `manifests/HOST/NAMESPACE/MODEL/TAG` is JSON, whose layers name files in
`blobs/` by their digests. The two others keep plain files in folders. Nothing here is written or loaded.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint
from edge_tui.util.user_file import exists, expand, is_folder, read_text

if TYPE_CHECKING:
    from collections.abc import Iterator

OLLAMA = "ollama:"
"""Begins the name of a model of Ollama's: `ollama:llama3.2:3b`."""
_HOST, _NAMESPACE, _LATEST = "registry.ollama.ai", "library", "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256[:-]([0-9a-f]{64})")
_MODEL, _ADAPTER = "application/vnd.ollama.image.model", "application/vnd.ollama.image.adapter"
_MANIFEST_BYTES = 1_000_000


def ollama_names() -> Iterator[str]:
    """Yields the names of Ollama's models, in alphabetical order."""
    found = set()
    for store in _ollama_folders():
        root = store / "manifests"
        try:
            files = list(root.glob("*/*/*/*"))
        except OSError:
            continue
        found |= {name for file in files if (name := _name(file.relative_to(root).parts))}
    yield from sorted(found)


def ollama_file(name: str) -> Path:
    """Returns the GGUF file of one of Ollama's models.

    Args:
        name: As `ollama_names` has it; without a tag it is the latest.

    Raises:
        CheckpointError: there is no such model, its manifest is damaged, or it has an adapter.
    """
    parts = _parts(name)
    for store in _ollama_folders():
        manifest = store.joinpath("manifests", *parts)
        if parts and exists(manifest):
            return _blob(name, store, _layers(name, manifest))
    known = ", ".join(list(ollama_names())[:8])
    raise CheckpointError(
        f"Ollama has no model {name.removeprefix(OLLAMA)!r} on this machine; "
        + (f"it has {known}." if known else "'ollama pull' fetches one.")
    )


def folders() -> list[Path]:
    """Lists the folders in which LM Studio and llama.cpp keep models, where they are there."""
    cache = "~/Library/Caches" if sys.platform == "darwin" else os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    named = (
        "~/.lmstudio/models",
        "~/.cache/lm-studio/models",
        os.environ.get("LLAMA_CACHE") or f"{cache}/llama.cpp",
    )
    return [folder for folder in map(expand, named) if is_folder(folder)]


def _ollama_folders() -> list[Path]:
    """Lists the stores of the user's Ollama, and of one that runs as a service on Linux."""
    own = os.environ.get("OLLAMA_MODELS") or "~/.ollama/models"
    return [expand(own), Path("/usr/share/ollama/.ollama/models")]


def _name(parts: tuple[str, ...]) -> str:
    """Writes the path of a manifest as a name; "" for one that no name leads to."""
    host, namespace, model, tag = parts
    if not all(map(_PART.fullmatch, parts)):
        return ""
    if host != _HOST:
        return f"{OLLAMA}{host}/{namespace}/{model}:{tag}"
    return f"{OLLAMA}{model}:{tag}" if namespace == _NAMESPACE else f"{OLLAMA}{namespace}/{model}:{tag}"


def _parts(name: str) -> tuple[str, ...]:
    """Reads a name as the path of its manifest; () for what is none."""
    path, _, tag = name.removeprefix(OLLAMA).partition(":")
    parts = path.split("/")
    given = (*(_HOST, _NAMESPACE)[: max(3 - len(parts), 0)], *parts, tag or _LATEST)
    return given if len(given) == 4 and all(map(_PART.fullmatch, given)) else ()


def _layers(name: str, manifest: Path) -> dict[str, str]:
    """Reads the digests of a manifest's layers by their types.

    Raises:
        IncompleteCheckpoint: it cannot be read.
    """
    try:
        stated: Any = json.loads(read_text(manifest, _MANIFEST_BYTES))
        return {str(layer["mediaType"]): str(layer["digest"]) for layer in stated["layers"]}
    except (OSError, ValueError, RecursionError, LookupError, TypeError) as error:
        raise IncompleteCheckpoint(
            f"The manifest of {name} cannot be read ({manifest}); fetch it again with 'ollama pull'."
        ) from error


def _blob(name: str, store: Path, layers: dict[str, str]) -> Path:
    """Returns the file of the layer that is the model.

    Raises:
        CheckpointError: there is none, or an adapter has to be added to it.
    """
    if _ADAPTER in layers:
        raise CheckpointError(f"{name} is an adapter on another model, which is not read; choose that model.")
    digest = _DIGEST.fullmatch(layers.get(_MODEL, ""))
    if digest is None:
        raise CheckpointError(f"{name} has no file of weights in Ollama's store; choose another model.")
    file = store / "blobs" / f"sha256-{digest[1]}"
    if not exists(file):
        raise IncompleteCheckpoint(f"{name} is incomplete in Ollama's store; fetch it with 'ollama pull'.")
    return file
