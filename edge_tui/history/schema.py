"""Opens the history's file, makes its tables and updates those of an older version.

`salvage` handles a file that is damaged or cannot be written.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from edge_tui.errors import EdgeError

VERSION = 1
"""Of the tables; in the file as `user_version`."""
BUSY_SECONDS = 2.0
"""Limit of waiting for another process that writes."""
OLDEST_SQLITE = (3, 34)
"""The first release whose full-text index finds parts of words in any script."""

_V1 = """
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    created REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    model TEXT NOT NULL DEFAULT '',
    strategy TEXT NOT NULL DEFAULT '',
    tokens INTEGER NOT NULL DEFAULT 0,
    seconds REAL NOT NULL DEFAULT 0,
    prompt TEXT NOT NULL DEFAULT '',
    answer TEXT NOT NULL DEFAULT '',
    conversation TEXT NOT NULL DEFAULT '',
    turn INTEGER NOT NULL DEFAULT 0,
    parent TEXT NOT NULL DEFAULT '',
    owner TEXT NOT NULL DEFAULT '',
    beat REAL NOT NULL DEFAULT 0,
    seen INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX runs_by_age ON runs (created);
CREATE INDEX runs_under_way ON runs (state) WHERE state = 'running';

CREATE TABLE details (
    run INTEGER PRIMARY KEY REFERENCES runs ON DELETE CASCADE,
    request TEXT NOT NULL,
    started TEXT NOT NULL DEFAULT '',
    finished TEXT NOT NULL DEFAULT '',
    models TEXT NOT NULL DEFAULT '{}',
    versions TEXT NOT NULL DEFAULT '{}',
    message TEXT NOT NULL DEFAULT ''
);

-- Token columns in the order of their numbers; number -1 holds tokens taken over from an earlier run.
CREATE TABLE chunks (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    number INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, number)
);

CREATE TABLE changes (
    run INTEGER NOT NULL REFERENCES runs ON DELETE CASCADE,
    position INTEGER NOT NULL,
    name TEXT NOT NULL,
    value REAL NOT NULL,
    version INTEGER NOT NULL
);
CREATE INDEX changes_of_run ON changes (run);

-- What ids meant, so that alternatives can be read without the model.
CREATE TABLE vocabularies (id INTEGER PRIMARY KEY, model TEXT NOT NULL UNIQUE);
CREATE TABLE pieces (
    vocabulary INTEGER NOT NULL REFERENCES vocabularies ON DELETE CASCADE,
    token INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (vocabulary, token)
) WITHOUT ROWID;

-- Whole prompts and answers, by the run's id. Trigrams find parts of words, code, and scripts without spaces.
CREATE VIRTUAL TABLE search USING fts5 (prompt, answer, label, tokenize = 'trigram');
"""

MIGRATIONS: tuple[str, ...] = (_V1,)
"""Statements that lead from each version to the next; the first makes an empty file version 1."""


class HistoryError(EdgeError):
    """Refuses a history that cannot be used."""

    code = "history"


def default_path() -> Path:
    """Returns the path of `history.db` in the platform's data folder."""
    import platformdirs

    return platformdirs.user_data_path("edge-tui", appauthor=False) / "history.db"


def connect(path: Path | None) -> sqlite3.Connection:
    """Opens a history, making or updating its tables.

    Args:
        path: The file, readable by its owner alone; None for a history in memory.

    Raises:
        HistoryError: SQLite is too old, or the file was written by a newer version.
        sqlite3.Error, OSError: it cannot be opened.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise HistoryError(
            f"Keeping a history needs SQLite {'.'.join(map(str, OLDEST_SQLITE))} or newer, but Python was"
            f" built with {sqlite3.sqlite_version}: nothing is kept."
        )
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its side files the mode of the file itself. A file that is there is not opened: closing
        # it would end the locks of this process's other connections, and others would delete their log.
        if not path.exists():
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        path.chmod(0o600)
    connection = sqlite3.connect(
        path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        if (version := _version(connection)) > VERSION:
            raise HistoryError(
                f"The history was written by a newer edge-tui (format {version}, this one reads {VERSION}):"
                " update edge-tui to see it; nothing is kept meanwhile."
            )
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # heeded while the file is empty
        connection.execute("PRAGMA journal_mode = WAL")
        # A process that is killed loses nothing that way; only a power cut may take the last moments.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")
        if version < VERSION:
            _update(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _update(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Another process may have been quicker.
        for migration in MIGRATIONS[_version(connection) :]:
            for statement in migration.split(";\n"):  # `executescript` would commit in between
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
