"""Opens the history for reading beside the recorder that writes it."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

from edge_tui.history.schema import HistoryError

if TYPE_CHECKING:
    from edge_tui.history.runs import Entry
    from edge_tui.history.store import Store
    from edge_tui.tui.session import Session


class HistoryAccess:
    """Opens the store on its first use, and again after the recorder has begun another file.

    Args:
        session: Holds the recorder, if runs are recorded.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._store: Store | None = None
        self._problem = ""

    def store(self) -> Store | None:
        """Returns the stored runs; None where runs are not recorded.

        Raises:
            HistoryError: the file cannot be opened.
        """
        if self._store is None and self._session.recorder is not None:
            try:
                self._store = self._session.recorder.reader()
            except (sqlite3.Error, OSError) as error:
                raise HistoryError(str(error)) from error
        return self._store

    def new_problem(self) -> str:
        """Returns the recorder's problem once, as a sentence; "" where there is none, or no other one."""
        recorder = self._session.recorder
        problem = recorder.problem if recorder is not None else ""
        if problem == self._problem:
            return ""
        self._problem = problem
        self._store = None  # a damaged file has made way for another one
        return problem

    def interrupted(self) -> Entry | None:
        """Finds the newest run that a vanished process left unfinished, once. Blocks on the disk."""
        from edge_tui.history.restore import recover

        recorder = self._session.recorder
        try:
            store = recorder.reader() if recorder is not None else None
            if store is None:
                return None
            recover(store, time.time())
            return store.take_offer()
        except (HistoryError, sqlite3.Error, OSError):
            return None  # the next start looks again
