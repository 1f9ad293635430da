"""Opens a history; copies the readable part of a damaged one into a new file.

SQLite notices damage where it reads, so a file is checked when it is opened. A damaged one is copied run by
run, and only then do the two change places: a process that is killed meanwhile leaves all as it was.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import struct
import time
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import Finished, Started
from edge_tui.engine.port import Request
from edge_tui.history import columns
from edge_tui.history.restore import transcript_of
from edge_tui.history.runs import Entry, StoredRun, preview, prompt_of
from edge_tui.history.schema import HistoryError
from edge_tui.history.store import Store
from edge_tui.util import user_file
from edge_tui.util.dataclass_json import build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edge_tui.engine.events import TokenBatch

_PAGE = 4096
"""Bytes of a page, of every history that was ever made."""
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_IDS = (
    "SELECT id FROM runs",
    "SELECT id FROM runs ORDER BY id DESC",
    "SELECT id FROM runs INDEXED BY runs_by_age ORDER BY created",
    "SELECT id FROM runs INDEXED BY runs_by_age ORDER BY created DESC",
    "SELECT run FROM details",
    "SELECT run FROM details ORDER BY run DESC",
    "SELECT run FROM chunks ORDER BY run, number",
    "SELECT run FROM chunks ORDER BY run DESC, number DESC",
)
"""Queries for ids of runs, from both ends: rows behind a damaged page are reached from the other."""


def is_damage(error: BaseException | None) -> bool:
    """Tells whether an error, or its cause, means that the file's content is not what SQLite wrote."""
    return error is not None and (
        getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE or is_damage(error.__cause__)
    )


def open_store(path: Path) -> Store:
    """Opens a history, or one in memory where its file cannot be used; `problem` then says why.

    Raises:
        HistoryError: SQLite is too old even for a history in memory.
    """
    try:
        return open_or_rebuild(path)
    except HistoryError as error:
        return Store(problem=str(error))
    except (sqlite3.Error, OSError) as error:
        # Locked, read-only, full: the file may be sound.
        reason = user_file.error_reason(error) if isinstance(error, OSError) else error
        return Store(problem=f"The history {path} cannot be used ({reason}); this session is not kept.")


def open_or_rebuild(path: Path) -> Store:
    """Opens a history; puts a new one in a damaged one's place, and `problem` says so.

    Raises:
        HistoryError: SQLite is too old, or the file was written by a newer version.
        sqlite3.Error, OSError: it cannot be used, or is damaged and cannot be set aside.
    """
    store = None
    try:
        store = Store(path)
        if not store.is_damaged():
            return store
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
    if store is not None:
        store.close()
    return rebuild(path)


def rebuild(path: Path) -> Store:
    """Puts a new history with the readable runs in a damaged one's place; its `problem` says so.

    Raises:
        HistoryError, sqlite3.Error, OSError: the new one cannot be written, or the old one not be renamed.
    """
    return Store(path, problem=_replace(path))


def _replace(path: Path) -> str:
    """Copies the readable runs to a new file, and exchanges the two; returns the sentence about it."""
    before = path.stat().st_ino
    with TemporaryDirectory(prefix=f"{path.stem}-rebuilt-", dir=path.parent) as folder:
        fresh, copy = Path(folder, "fresh.db"), Path(folder, "copy.db")
        Store(fresh).close()
        first_page = fresh.read_bytes()[:_PAGE]
        saved = lost = 0
        with closing(Store(fresh)) as new:
            room = shutil.disk_usage(path.parent).free > 2 * path.stat().st_size  # for a copy and the new one
            for header in (b"", first_page) if room else ():
                if not saved:
                    _copy_file(path, copy, header)
                    saved, lost = _copy(copy, new)
        if path.stat().st_ino != before:
            return ""  # another process was quicker
        aside = path.with_name(f"{path.stem}-damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
        for suffix in ("-wal", "-shm"):  # its newest runs may be there alone
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
        path.rename(aside)
        fresh.rename(path)
    if not room:
        return f"The history was damaged, and the disk has no room to save it: it lies in {aside.name} now."
    if not saved:
        return f"The history was damaged; it lies in {aside.name} now and a new one begins."
    missing = f"; {lost:,} could not be read, or not whole" if lost else ""
    runs = "1 run is" if saved == 1 else f"{saved:,} runs are"
    return f"The history was damaged: {runs} in a new one{missing}. The damaged file is {aside.name} now."


def _copy_file(path: Path, copy: Path, first_page: bytes) -> None:
    """Copies a damaged file and its write-ahead log, and mends the header.

    Args:
        path: The file.
        copy: The new file.
        first_page: Of a history of this version, put in the first page's place: every history has its tables
            at the same pages. Nothing to leave the page as it is.
    """
    copy.unlink(missing_ok=True)
    shutil.copyfile(path, copy)
    with suppress(FileNotFoundError):
        shutil.copyfile(path.with_name(path.name + "-wal"), copy.with_name(copy.name + "-wal"))
    with copy.open("r+b") as file:
        file.write(first_page)
        file.seek(0, os.SEEK_END)
        pages = file.tell() // _PAGE
        # A file that is shorter than its header says is not even opened. No page is free.
        file.seek(28)
        file.write(struct.pack(">III", pages, 0, 0))
        file.seek(24)
        change = file.read(4)
        file.seek(92)
        file.write(change)


def _copy(path: Path, new: Store) -> tuple[int, int]:
    """Copies readable runs; returns the count of copies, and of runs that are missing or not complete."""
    saved = lost = 0
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error:
        return 0, 0
    with closing(Store(connection=connection)) as old:
        for run in _ids(connection, path):
            stored, whole = _read(old, connection, run)
            lost += not whole
            if stored is not None:
                with suppress(HistoryError, sqlite3.IntegrityError):
                    new.import_run(stored, _answer(stored))
                    saved += 1
        for vocabulary, model in _tolerant(connection, "SELECT id, model FROM vocabularies"):
            pieces = "SELECT token, text FROM pieces WHERE vocabulary = ? ORDER BY token"
            found = dict(_tolerant(connection, pieces, vocabulary))
            found |= dict(_tolerant(connection, f"{pieces} DESC", vocabulary))
            texts = {id: text for id, text in found.items() if isinstance(text, str)}
            with suppress(sqlite3.IntegrityError):
                new.add_token_strings(str(model), texts)
    return saved, lost


def _ids(connection: sqlite3.Connection, path: Path) -> list[int]:
    """Lists ids that any table or index still has, in the order in which the runs began."""
    most = path.stat().st_size  # a run takes more than a byte: a larger number is damage, no id
    ids = {id for query in _IDS for (id,) in _tolerant(connection, query) if isinstance(id, int)}
    return sorted(id for id in ids if 0 < id <= most)


def _tolerant(connection: sqlite3.Connection, query: str, *values: Any) -> Iterator[tuple[Any, ...]]:
    """Yields rows of a query up to the first that cannot be read."""
    with suppress(sqlite3.Error, OverflowError):
        yield from connection.execute(query, values)


def _read(old: Store, connection: sqlite3.Connection, run: int) -> tuple[StoredRun | None, bool]:
    """Reads as much of a run as can be read, or None; the flag is True if that is all of it."""
    try:
        return old.load(run), True
    except (HistoryError, sqlite3.Error, LookupError, TypeError, ValueError):
        pass
    query = "SELECT request, started, finished FROM details WHERE run = ?"
    details = next(_tolerant(connection, query, run), ("", "", ""))
    request, started, finished = map(_built, (Request, Started, Finished), details)
    entry = _attempt(old.entry, run)
    if entry is None and request is None:
        return None, False
    request = request or Request(entry.prompt, strategy=entry.strategy)
    batches = tuple(_batches(connection, run))
    if entry is None:
        prompt, tokens = preview(prompt_of(request)), sum(map(len, batches))
        uid = secrets.token_hex(8)
        entry = Entry(run, uid, 0.0, "interrupted", "", "", request.strategy, tokens, 0.0, prompt, "")
    return StoredRun(entry, request, started, finished, batches=batches), False


def _batches(connection: sqlite3.Connection, run: int) -> Iterator[TokenBatch]:
    """Yields chunks of a run's own tokens up to the first that is missing or cannot be read."""
    query = "SELECT data FROM chunks WHERE run = ? AND number = ?"
    for number in count():
        (data,) = next(_tolerant(connection, query, run, number), (b"",))
        if (batch := _attempt(columns.unpack, data, run)) is None:
            return
        yield batch


def _answer(stored: StoredRun) -> str:
    return _attempt(lambda: transcript_of(stored).text) or stored.entry.answer


def _built(kind: type, text: object) -> Any:
    """Builds a dataclass from a column's JSON; None where damage prevents it."""
    return _attempt(lambda: build(kind, json.loads(str(text))))


def _attempt(read: Callable[..., Any], *values: Any) -> Any:
    """Calls a reader; None where damage lets it fail, in whatever way."""
    try:
        return read(*values)
    except Exception:
        return None
