"""Runs SQL on one connection to a history that several threads share."""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge_tui.history.schema import HistoryError, connect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_CHECK_SECONDS = 1.0
"""Limit of the search for damage; a file of many gigabytes is checked in part."""
_CHECK_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the clock."""


class Database:
    """Holds one connection; threads take turns.

    Args:
        path: The file; None for a history in memory.
        connection: Used as it is, instead of one that is opened and brought up to date.

    Raises:
        HistoryError, sqlite3.Error, OSError: the file cannot be used; see `salvage.open_store`.
    """

    def __init__(self, path: Path | None = None, connection: sqlite3.Connection | None = None) -> None:
        self.path = path
        self._connection = connect(path) if connection is None else connection
        self._lock = threading.RLock()
        file = self._connection.execute("PRAGMA database_list").fetchone()[2]
        self.is_persistent = bool(file)
        """False for a history in memory."""

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        """Makes all the changes within or none, even if the process is killed. May be nested.

        Args:
            begin: "BEGIN" for reads that all see one moment, whatever others write meanwhile.
        """
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute(begin)
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Reads all rows of a query.

        Raises:
            HistoryError: SQLite refuses.
        """
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise HistoryError(f"The history cannot be read: {error}.") from error

    def execute(self, statement: str, values: Sequence[Any] = ()) -> int:
        """Executes a statement; returns the id of the row it added."""
        with self._lock:
            return self._connection.execute(statement, values).lastrowid or 0

    def execute_many(self, statement: str, rows: Iterable[Sequence[Any]]) -> None:
        """Executes a statement once for each row of values."""
        with self._lock:
            self._connection.executemany(statement, rows)

    def insert(self, table: str, **values: Any) -> int:
        """Adds a row; returns its id."""
        marks = ", ".join("?" * len(values))
        return self.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()])

    def update(self, table: str, row: int, **values: Any) -> None:
        """Changes a row, found by its id."""
        changes = ", ".join(f"{name} = ?" for name in values)
        self.execute(f"UPDATE {table} SET {changes} WHERE rowid = ?", [*values.values(), row])

    def is_damaged(self) -> bool:
        """Searches the file for damage, for a second; the rest is taken for sound."""
        end = time.monotonic() + _CHECK_SECONDS
        with self._lock:
            self._connection.set_progress_handler(lambda: time.monotonic() > end, _CHECK_STEPS)
            try:
                found = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.OperationalError:
                return False  # the time is up
            finally:
                self._connection.set_progress_handler(None, 0)
        return bool(found[0] != "ok")
