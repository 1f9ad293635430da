"""Chooses one of several GGUF models in a folder or repository by its tag, as in `REPOSITORY:Q4_K_M`."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.gguf.model import first_parts
from edge_tui.engine.checkpoints.weight_files import CheckpointError
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""What may follow the colon."""
_KIND = re.compile(r"(?:^|[-._])((?:IQ|TQ|Q)\d\w*|BF16|FP?16|FP?32)(?=$|[-.])", re.IGNORECASE)
_LISTED = 8


def split_tag(name: str) -> tuple[str, str]:
    """Splits `NAME:TAG` at its last colon; the tag is "" where there is none."""
    before, colon, tag = name.rpartition(":")
    return (before, tag) if colon and before and TAG.fullmatch(tag) else (name, "")


def tag_of(file: str) -> str:
    """Returns the kind in a file's name, `Q4_K_M`; its whole name without the ending where there is none."""
    stem = PurePath(file).stem
    found = _KIND.findall(stem)
    return found[-1] if found else stem


def files_in(folder: Path) -> list[str]:
    """Lists the GGUF models of a repository's folder and of the folders in it, by their relative names.

    Raises:
        OSError: it cannot be read.
    """
    inside = [*folder.iterdir(), *folder.glob("*/*")]
    return first_parts(str(file.relative_to(folder)) for file in inside)


def choose(name: str, files: Iterable[str], tag: str) -> str:
    """Chooses the model of a tag, or the only one; of a split model its first file.

    Args:
        name: Of the folder or repository, for readers.
        files: Relative names of its files.
        tag: A kind, any whole part of a file's name, or its folder, in capitals or not; "" takes the only
            model.

    Raises:
        CheckpointError: there is none, or there are several; the sentence lists what may be named.
    """
    models = first_parts(files)
    if not tag:
        found = models
    else:
        whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(tag)}(?![A-Za-z0-9_])", re.IGNORECASE)
        same = [file for file in models if tag_of(file).casefold() == tag.casefold()]
        named = [file for file in models if whole.search(PurePath(file).stem)]
        found = same or named or [file for file in models if _folder(file).casefold() == tag.casefold()]
    if len(found) == 1:
        return found[0]
    listed = [one_line(f"{name}:{tag}") for tag in _distinct_tags(found or models)]
    if not listed:
        raise CheckpointError(f"{name} holds no GGUF model; leave out the tag.")
    names = ", ".join(listed[:_LISTED]) + (
        f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    )
    if not found:
        raise CheckpointError(f"{name} has no GGUF model {tag!r}; name one of these: {names}.")
    raise CheckpointError(f"{name} holds {len(found)} GGUF models, of which one is needed; name it: {names}.")


def _distinct_tags(files: list[str]) -> list[str]:
    """Lists a tag for each file: its kind, or its name or folder where that alone tells them apart."""
    kinds = [tag_of(file) for file in files]
    choices = kinds, [PurePath(file).stem for file in files], [_folder(file) for file in files]
    return next((tags for tags in choices if len(set(tags)) == len(tags) and all(tags)), kinds)


def _folder(file: str) -> str:
    return PurePath(file).parent.name
