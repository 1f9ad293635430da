"""Reads the user's files and folders without hanging on what lies in their place.

Opening a pipe waits for a writer, a device never ends, a folder may refuse to be listed. Each becomes an
`OSError` whose `strerror` says so, or a sentence.
"""

from __future__ import annotations

import errno
import os
import stat
from fnmatch import fnmatchcase
from pathlib import Path

LIMIT = 4_000_000
"""Bytes of the largest file that is read; files written by hand are a thousand times smaller."""
_CHUNK = 2**18
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_bytes(path: Path, limit: int = LIMIT) -> bytes:
    """Reads a regular file to its end.

    Raises:
        OSError: it cannot be read, is no regular file, or has more than `limit` bytes.
    """
    try:
        _refuse_special(path, os.stat(path))  # noqa: PTH116
        # What has become a pipe since must not hold us up either.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except ValueError as error:
        raise OSError(errno.EINVAL, "its path holds a NUL character", repr(str(path))) from error
    try:
        _refuse_special(path, os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    with os.fdopen(handle, "rb") as file:
        raw = bytearray()
        while chunk := file.read(_CHUNK):
            raw += chunk
            if len(raw) > limit:
                raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
    return bytes(raw)


def read_text(path: Path, limit: int = LIMIT) -> str:
    """Reads a regular file as UTF-8, without the mark that Windows' editors put in front.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, limit).decode("utf-8-sig")


def exists(path: Path) -> bool:
    """Tells whether a path exists; False also where that may not be looked up."""
    return os.path.exists(path)  # noqa: PTH110


def expand(path: str | Path) -> Path:
    """Replaces `~` by a home folder; a path of an unknown user stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111


def is_folder(path: Path) -> bool:
    """Tells whether a folder is there; False where nobody may look."""
    return os.path.isdir(path)  # noqa: PTH112 — pathlib's own raises for a folder above that is shut


def existing_folder(folder: Path) -> Path:
    """Returns a folder, or the nearest one above it that exists."""
    while not exists(folder) and folder != folder.parent:
        folder = folder.parent
    return folder


def list_files(folder: Path, pattern: str) -> tuple[list[Path], str]:
    """Lists the files of a folder that match, by name.

    Returns:
        The paths, none where there is no folder, and a sentence if the folder cannot be read, else "".
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return [], ""
    except (OSError, ValueError) as error:
        return [], f"The folder {folder} cannot be read ({error_reason(error)}), so nothing in it is used."
    return sorted(folder / name for name in names if fnmatchcase(name, pattern)), ""


def special_file(folder: Path) -> Path | None:
    """Finds a pipe, socket or device in a folder, which would hang its reader; None if there is none.

    Raises:
        OSError: the folder cannot be read.
    """
    for path in sorted(folder.iterdir()):
        try:
            if stat.S_IFMT(path.stat().st_mode) in _KINDS:
                return path
        except OSError:
            continue  # whoever wants that file will say what is wrong with it
    return None


def error_reason(error: Exception) -> str:
    """Returns the reason of a failed read or write in a few words."""
    return (getattr(error, "strerror", None) or type(error).__name__).lower()


def _refuse_special(path: Path, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind in _KINDS:
        raise OSError(errno.EINVAL, f"it is {_KINDS[kind]}, not a file", str(path))
