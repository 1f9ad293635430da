"""Writes files so that whatever happens, a reader finds the old file or the new one, whole.

A file is written beside its place, brought to the disk and renamed; a link in its place is followed.
"""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path

OWNER_ONLY = 0o600
PUBLIC = 0o666
"""Permissions that the user's umask narrows, for results that others may read."""


def replace_file(path: Path, content: str | bytes, mode: int = OWNER_ONLY) -> None:
    """Writes a file in the place of the one before, if any, and makes missing folders.

    Args:
        path: The file.
        content: Text is written as UTF-8.
        mode: Permissions of a new file; those of an existing one stay.

    Raises:
        OSError: it cannot be written; the file before is as it was.
    """
    path = Path(os.path.realpath(path))  # `resolve` fails at a link to itself
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    create_file(fresh, content, mode)
    try:
        with suppress(FileNotFoundError):
            fresh.chmod(path.stat().st_mode & 0o777)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def create_file(path: Path, content: str | bytes, mode: int = OWNER_ONLY) -> None:
    """Writes a new file to the disk, in a folder that exists; nothing is left of one that fails.

    Raises:
        FileExistsError: a file has that name.
        OSError: it cannot be written.
    """
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def create_numbered_file(path: Path, content: str | bytes) -> Path:
    """Writes a new file, with a number behind its name where that holds something else already.

    Returns:
        The file; one that holds the content already is left as it is.

    Raises:
        OSError: it cannot be written, or a hundred files of that name hold something else.
    """
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    for number in range(100):
        free = path.with_stem(f"{path.stem}-{number}") if number else path
        try:
            create_file(free, raw)
            return free
        except FileExistsError:
            if free.is_file() and free.read_bytes() == raw:
                return free
    raise FileExistsError(errno.EEXIST, "there are a hundred of it", str(path))
