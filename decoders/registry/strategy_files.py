"""Reads the files in which users keep strategies: lists them, refuses what is none, runs one as a module."""

from __future__ import annotations

import stat
import sys
from fnmatch import fnmatchcase
from types import ModuleType
from typing import TYPE_CHECKING

from edge_tui.decoders.core.errors import StrategyError

if TYPE_CHECKING:
    from pathlib import Path

_LIMIT = 1_000_000
"""Bytes of the largest file that is run."""


def list_files(folder: Path) -> list[Path]:
    """Lists the files of a folder that may hold strategies; none where there is no folder.

    Raises:
        StrategyError: the folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatchcase(path.name, "[!_]*.py"))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StrategyError(f"it cannot be read ({error.strerror}), so nothing in it is used.") from error


def check_file(path: Path) -> None:
    """Refuses a file that would hang its reader (a pipe, a device) or fill the memory.

    Raises:
        StrategyError: it is no file, too large, or cannot be read.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise StrategyError(f"it cannot be read ({error.strerror}).") from error
    if not stat.S_ISREG(status.st_mode):
        raise StrategyError("it is no file; a strategy is a file of Python code.")
    if status.st_size > _LIMIT:
        raise StrategyError(f"it has {status.st_size:,} bytes; a strategy takes at most {_LIMIT:,}.")


def run_file(path: Path, name: str, text: bytes) -> ModuleType:
    """Runs a file's text as a module, without leaving compiled files in the user's folder."""
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        exec(compile(text, str(path), "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    return module
