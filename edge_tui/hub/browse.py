"""Lists what is in a folder whose path is being typed: folders to go into, and models."""

from __future__ import annotations

import os
from pathlib import Path

from edge_tui.engine.checkpoints.gguf.model import models_in
from edge_tui.hub.listing import Listing, describe_local
from edge_tui.util.user_file import exists

_BEGINNINGS = ("/", "~", f".{os.sep}", f"..{os.sep}")


def split_path(text: str) -> tuple[str, str]:
    """Splits a typed path behind its last separator: the folder, and the beginning of a name in it.

    Returns:
        ("", text) for what is no path; a folder ends in a separator.
    """
    if not text.startswith(_BEGINNINGS):
        return "", text
    folder, separator, rest = text.rpartition(os.sep)
    return (folder + separator, rest) if separator else (text + os.sep, "")


def browse(folder: str) -> tuple[list[str], list[Listing]]:
    """Lists the folders in a folder, and its models: folders with a config.json and GGUF files.

    Args:
        folder: As it was typed, with the separator behind it.

    Returns:
        The folders' names as they would be typed, with a separator behind them; the models, whose names load
        them. Both empty where the folder cannot be read.
    """
    try:
        path = Path(folder).expanduser()
        inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
        files = models_in(path)
    except (OSError, RuntimeError, ValueError):
        return [], []
    folders = [each for each in inside if each.is_dir()]
    models = [each for each in folders if exists(each / "config.json")]
    named = [f"{folder}{each.name}{os.sep}" for each in folders if each not in models]
    return named, [describe_local(str(each.absolute()), "folder") for each in (*models, *files)]
