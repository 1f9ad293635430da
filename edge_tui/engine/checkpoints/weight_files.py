"""Reads a checkpoint's files: small JSON objects and the headers of its weight files.

A safetensors file starts with an 8-byte length and a JSON header that gives each tensor's dtype, shape and
place, so what a checkpoint holds, and whether it is whole, is known without reading a weight.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from edge_tui.errors import EdgeError
from edge_tui.util.user_file import read_text

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
_HEADER_LIMIT = 100_000_000
"""The safetensors format's own bound of a header, in bytes."""
_JSON_LIMIT = 100_000_000
"""Bytes of the largest JSON file that is read: the index of a model's shards has some megabytes."""
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_POINTER = b"version https://git-lfs"


class CheckpointError(EdgeError):
    """Refuses a checkpoint that cannot be used, in one sentence: the thing, the limit, the way out."""

    code = "checkpoint"


class IncompleteCheckpoint(CheckpointError):
    """Refuses a checkpoint whose files are missing or damaged; a download makes it whole."""

    code = "incomplete"


class WeightsError(ValueError):
    """Refuses weights that cannot be loaded, in one sentence that names what is wrong."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Describes one stored tensor, as its file's header does.

    Attributes:
        dtype: The format's name: "BF16", "F32", "U8" …
        shape: As stored.
        bytes: Length in the file.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_json(name: str, file: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None if there is no such file."""
    try:
        value = json.loads(read_text(file, _JSON_LIMIT))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise CheckpointError(
            f"{file.name} of {name} cannot be read ({error.strerror}); check its permissions."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        check_pointer(name, file)
        raise unreadable_error(name, file, error) from error
    if not isinstance(value, dict):
        raise IncompleteCheckpoint(f"{file.name} of {name} is not a JSON object; fetch the checkpoint again.")
    return value


def unreadable_error(name: str, file: Path, error: Exception) -> IncompleteCheckpoint:
    """Explains a file that cannot be read."""
    return IncompleteCheckpoint(
        f"{file.name} of {name} cannot be read ({error}); fetch the checkpoint again."
    )


def quantisation_error(name: str, method: str) -> CheckpointError:
    """Explains a quantisation that is not read."""
    return CheckpointError(
        f"{name} is quantised as {method}, which is not supported; "
        "take the 16-bit checkpoint and load it as int8 or 4bit."
    )


def check_pointer(name: str, file: Path) -> None:
    """Refuses a Git LFS pointer that lies in a file's place; other files, and none, pass.

    Raises:
        CheckpointError: it is one.
    """
    try:
        with file.open("rb") as stream:
            pointer = stream.read(len(_POINTER)) == _POINTER
    except OSError:
        return
    if pointer:
        raise CheckpointError(
            f"{file.name} of {name} is a Git LFS pointer, not the file itself; "
            "run 'git lfs pull' in its folder."
        )


def lone_file_error(name: str, path: Path) -> CheckpointError:
    """Explains a file that was given in the place of a checkpoint's folder."""
    try:
        path.open("rb").close()
    except OSError as error:
        return CheckpointError(f"{name} cannot be read ({error.strerror}); check the file's permissions.")
    if path.suffix.lower() in _PICKLES:
        return CheckpointError(
            f"{name} is a pickled weight file, a format that can run code when it is read; "
            "give a folder with safetensors."
        )
    if (path.parent / "config.json").is_file():
        return CheckpointError(
            f"{name} is one file of a checkpoint, which is read as a whole; give its folder, {path.parent}."
        )
    return CheckpointError(
        f"{name} is a file, not a folder with a checkpoint; give a GGUF file, or a folder with config.json, "
        "safetensors and a tokenizer."
    )


def is_gguf(file: Path) -> bool:
    """Tells whether a file is in GGUF, by its name or by its first bytes."""
    if file.suffix.lower() == ".gguf":
        return True
    try:
        with file.open("rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError:
        return False


def shard_files(name: str, path: Path) -> list[Path]:
    """Lists the safetensors files of a folder, in order.

    Raises:
        CheckpointError: one is missing, or the index cannot be read.
    """
    index = read_json(name, path / "model.safetensors.index.json")
    if index is not None:
        shards = index.get("weight_map")
        names = sorted({str(file) for file in shards.values()}) if isinstance(shards, dict) else []
        missing = [file for file in names if not _FILE.fullmatch(file) or not (path / file).exists()]
        if missing or not names:
            first = missing[0] if missing else "every shard"
            raise IncompleteCheckpoint(
                f"{name} is incomplete: {len(missing)} of {len(names)} weight files are missing, "
                f"first {first}; fetch the checkpoint again."
            )
        return [path / file for file in names]
    if (path / "model.safetensors").exists():
        return [path / "model.safetensors"]
    present = (file.name for file in path.iterdir())
    raise missing_safetensors_error(name, present) or IncompleteCheckpoint(
        f"{name} has no weights (model.safetensors) in {path}; finish its download."
    )


def missing_safetensors_error(name: str, present: Iterable[str]) -> CheckpointError | None:
    """Explains a checkpoint without safetensors by the names of its files; None if they tell nothing."""
    present = sorted(present)
    if "adapter_config.json" in present:
        return CheckpointError(
            f"{name} is a LoRA adapter without its base model; merge it into that and load the result."
        )
    if any(file.endswith(".gguf") for file in present):
        return CheckpointError(
            f"{name} holds GGUF files, none of which is a language model; choose another repository."
        )
    pickles = [file for file in present if file.endswith(_PICKLES) and file != "training_args.bin"]
    if pickles:
        return CheckpointError(
            f"{name} has no safetensors, only {pickles[0]}, a format that can run code when it is read; "
            "take a revision with safetensors or convert it."
        )
    return None


def _header(name: str, file: Path) -> dict[str, StoredTensor]:
    """Reads one safetensors header and checks that the file is as long as it says."""
    size = needed = 0
    tensors = {}

    def damaged(what: str) -> IncompleteCheckpoint:
        return IncompleteCheckpoint(f"{file.name} of {name} {what}; fetch that file again.")

    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            raw = stream.read(length) if length <= min(_HEADER_LIMIT, size) else b""
        for key, entry in json.loads(raw).items():
            if key != "__metadata__":
                begin, end = map(int, entry["data_offsets"])
                shape = tuple(map(int, entry["shape"]))
                tensors[key] = StoredTensor(str(entry["dtype"]), shape, end - begin)
                needed = max(needed, 8 + length + end)
    except OSError as error:
        raise CheckpointError(
            f"{file.name} of {name} cannot be read ({error}); check its permissions."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        check_pointer(name, file)
        raise damaged(f"has a broken header ({size:,} bytes)") from error
    if size < needed:
        raise damaged(f"is truncated: {size:,} of {needed:,} bytes")
    for key, tensor in tensors.items():
        if tensor.dtype in _BITS and tensor.numel * _BITS[tensor.dtype] != 8 * tensor.bytes:
            raise damaged(f"is damaged: {key} has {tensor.bytes:,} bytes for its shape")
    return tensors


def read_tensors(name: str, path: Path) -> dict[str, StoredTensor]:
    """Reads the headers of all weight files of a folder."""
    tensors: dict[str, StoredTensor] = {}
    for file in shard_files(name, path):
        tensors |= _header(name, file)
    return tensors
