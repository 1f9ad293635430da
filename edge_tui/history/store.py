"""The history as SQL: writing runs as they stream, listing, finding, reading, deleting."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge_tui.engine.events import Finished, Loaded, Started, TokenBatch
from edge_tui.engine.port import Request
from edge_tui.history import columns, process_identity
from edge_tui.history.runs import Entry, StoredRun, build, preview, prompt_of, to_json
from edge_tui.history.schema import HistoryError, connect
from edge_tui.transcript.transcript import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from edge_tui.history.runs import State

__all__ = ["HistoryError", "Store"]

_ENTRY = (
    "id, uid, created, state, reason, model, strategy, tokens, seconds, prompt, answer,"
    " conversation, turn, parent"
)
_KEPT = -1
_TERM = re.compile(r'"([^"]+)"|(\S+)')
_TRIGRAM = 3
"""Shortest term that the index can look up."""


class Store:
    """One connection to a history; several threads may share it.

    Args:
        path: The file; None for a history in memory.
        problem: What the user should know about it, a sentence.
        connection: Used as it is, instead of one that is opened and brought up to date.

    Raises:
        HistoryError, sqlite3.Error, OSError: the file cannot be used; see `salvage.open_store`.
    """

    def __init__(
        self, path: Path | None = None, *, problem: str = "", connection: sqlite3.Connection | None = None
    ) -> None:
        self.path = path
        self.problem = problem
        """A sentence for the user, "" where all is well."""
        self._connection = connect(path) if connection is None else connection
        self._lock = threading.RLock()
        file = self._connection.execute("PRAGMA database_list").fetchone()[2]
        self.lasting = bool(file)
        """Whether it will still be there tomorrow."""

    def close(self) -> None:
        """Ends the connection."""
        with self._lock:
            self._connection.close()

    def is_damaged(self, seconds: float, steps: int) -> bool:
        """Looks through the file for damage.

        Args:
            seconds: After which the rest is taken for sound.
            steps: Instructions of SQLite's machine between two looks at the clock.
        """
        end = time.monotonic() + seconds
        with self._lock:
            self._connection.set_progress_handler(lambda: time.monotonic() > end, steps)
            try:
                found = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            except sqlite3.OperationalError:
                return False  # the time is up
            finally:
                self._connection.set_progress_handler(None, 0)
        return bool(found[0] != "ok")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing, even if the process is killed. May be nested."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    @contextmanager
    def _still(self) -> Iterator[None]:
        """What is read within is of one moment, whatever others write or delete meanwhile."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            try:
                return self._connection.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise HistoryError(f"The history cannot be read: {error}.") from error

    def _run(self, query: str, values: Sequence[Any] = ()) -> int:
        """Executes a statement; returns the id of the row it added."""
        with self._lock:
            return self._connection.execute(query, values).lastrowid or 0

    # Writing.

    def begin(
        self,
        uid: str,
        created: float,
        request: Request,
        state: State = "running",
    ) -> int:
        """A run was asked for.

        Returns:
            Its id within this history.
        """
        prompt = prompt_of(request)
        with self.transaction():
            run = self._run(
                "INSERT INTO runs (uid, created, state, strategy, prompt, owner, beat)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    uid,
                    created,
                    state,
                    request.strategy,
                    _clean(preview(prompt)),
                    process_identity.me(),
                    time.time(),
                ),
            )
            self._run("INSERT INTO details (run, request) VALUES (?, ?)", (run, to_json(request)))
            self._run(
                "INSERT INTO search (rowid, prompt, answer, label) VALUES (?, ?, '', '')",
                (run, _clean(prompt)),
            )
        return run

    def start(
        self, run: int, started: Started, models: Mapping[str, Loaded], versions: Mapping[str, str]
    ) -> None:
        """The prompt is being read: settings are resolved, models known."""
        main = models.get("model") or next(iter(models.values()), None)
        name = main.name if main is not None else ""
        with self.transaction():
            self._run(
                "UPDATE runs SET model = ?, strategy = ? WHERE id = ?", (_clean(name), started.strategy, run)
            )
            self._run(
                "UPDATE details SET started = ?, models = ?, versions = ? WHERE run = ?",
                (to_json(started), to_json(dict(models)), to_json(dict(versions)), run),
            )

    def place(self, run: int, conversation: str, turn: int, parent: str) -> None:
        """The run is a turn of a conversation."""
        self._run(
            "UPDATE runs SET conversation = ?, turn = ?, parent = ? WHERE id = ?",
            (conversation, turn, parent, run),
        )

    def keep(self, run: int, kept: TokenBatch) -> None:
        """Tokens that the run took over from an earlier one."""
        with self.transaction():
            self._put(run, _KEPT, kept)
            self._run("UPDATE runs SET tokens = tokens + ? WHERE id = ?", (len(kept), run))

    def heartbeat(self, runs: Iterable[int], now: float) -> None:
        """Signs of life of runs under way."""
        with self.transaction():
            for run in runs:
                self._run("UPDATE runs SET beat = ? WHERE id = ?", (now, run))

    def append(self, run: int, number: int, batch: TokenBatch, *, replacing: int = 0) -> None:
        """Tokens came.

        Args:
            run: Whose.
            number: Of the chunk; the next one, or the first of those that it replaces.
            batch: The tokens.
            replacing: How many chunks from `number` on are given up for this one.
        """
        with self.transaction():
            if replacing:
                self._run(
                    "DELETE FROM chunks WHERE run = ? AND number >= ? AND number < ?",
                    (run, number, number + replacing),
                )
            else:
                self._run("UPDATE runs SET tokens = tokens + ? WHERE id = ?", (len(batch), run))
            self._put(run, number, batch)

    def _put(self, run: int, number: int, batch: TokenBatch) -> None:
        data = columns.pack(batch)
        self._run("INSERT OR REPLACE INTO chunks (run, number, data) VALUES (?, ?, ?)", (run, number, data))

    def change(self, run: int, changes: Iterable[Change]) -> None:
        """Parameters were turned."""
        with self.transaction():
            for each in changes:
                self._run(
                    "INSERT INTO changes (run, position, name, value, version) VALUES (?, ?, ?, ?, ?)",
                    (run, each.index, each.name, each.value, each.version),
                )

    def finish(
        self, run: int, state: State, answer: str, finished: Finished | None = None, message: str = ""
    ) -> None:
        """The run has ended.

        Args:
            run: Which.
            state: How.
            answer: Its text.
            finished: What the engine said of the end.
            message: What went wrong, for a failed one.
        """
        with self.transaction():
            self._run(
                "UPDATE runs SET state = ?, reason = ?, seconds = ?, answer = ? WHERE id = ?",
                (
                    state,
                    finished.reason if finished else "",
                    finished.seconds if finished else 0.0,
                    _clean(preview(answer)),
                    run,
                ),
            )
            if finished is not None:
                self._run("UPDATE details SET finished = ? WHERE run = ?", (to_json(finished), run))
            if message:
                self._run("UPDATE details SET message = ? WHERE run = ?", (_clean(message), run))
            self._run(
                "UPDATE search SET answer = ?, label = (SELECT model || ' ' || strategy FROM runs"
                " WHERE id = ?) WHERE rowid = ?",
                (_clean(answer), run, run),
            )

    def insert(self, stored: StoredRun, answer: str) -> Entry:
        """Adds a run that comes from elsewhere.

        Raises:
            HistoryError: it is there already.
        """
        entry = stored.entry
        if self._rows("SELECT 1 FROM runs WHERE uid = ?", (entry.uid,)):
            raise HistoryError(f"The run {entry.uid} is in the history already.")
        with self.transaction():
            run = self.begin(entry.uid, entry.created, stored.request, entry.state)
            self.place(run, entry.conversation, entry.turn, entry.parent)
            if stored.started is not None:
                self.start(run, stored.started, stored.models, stored.versions)
            if stored.kept is not None:
                self.keep(run, stored.kept)
            for number, batch in enumerate(stored.batches):
                self.append(run, number, batch)
            self.change(run, stored.changes)
            state: State = "interrupted" if entry.state == "running" else entry.state
            self.finish(run, state, answer, stored.finished, stored.message)
            if stored.pieces:
                # What this machine's own model says of an id is not a file's to change.
                known = self.known_pieces(entry.model)
                fresh = {id: text for id, text in stored.pieces.items() if id not in known}
                self.add_pieces(entry.model, fresh)
        return self.entry(run)

    def delete(self, run: int) -> None:
        """Removes a run and everything about it."""
        with self.transaction():
            self._run("DELETE FROM runs WHERE id = ?", (run,))
            self._run("DELETE FROM search WHERE rowid = ?", (run,))
        self._rows("PRAGMA incremental_vacuum")

    # Reading.

    def runs(self) -> list[Entry]:
        """Every run, newest first."""
        return [
            Entry(*row) for row in self._rows(f"SELECT {_ENTRY} FROM runs ORDER BY created DESC, id DESC")
        ]

    def entry(self, run: int) -> Entry:
        """One line of the list.

        Raises:
            HistoryError: there is none.
        """
        found = self._rows(f"SELECT {_ENTRY} FROM runs WHERE id = ?", (run,))
        if not found:
            raise HistoryError(f"The history has no run {run}; `edge-tui history list` shows those it has.")
        return Entry(*found[0])

    def find(self, uid: str) -> Entry | None:
        """The line of a run by the beginning of its uid, if there is exactly one."""
        if not uid.isalnum():
            return None
        found = self._rows(f"SELECT {_ENTRY} FROM runs WHERE uid LIKE ? LIMIT 2", (f"{uid}%",))
        return Entry(*found[0]) if len(found) == 1 else None

    def search(self, query: str) -> set[int]:
        """Ids of runs that hold every term of the query in prompt, answer, model or strategy.

        Terms are separated by spaces or stand in quotes; they may be parts of words.
        """
        terms = [quoted or plain for quoted, plain in _TERM.findall(query)]
        terms = [cleaned for term in terms if (cleaned := _clean(term))]
        long = [term for term in terms if len(term) >= _TRIGRAM]
        where, values = [], []
        if long:
            where.append("search MATCH ?")
            values.append(" AND ".join('"' + term.replace('"', '""') + '"' for term in long))
        for term in terms:
            if len(term) < _TRIGRAM:
                where.append(
                    "(prompt LIKE ? ESCAPE '\\' OR answer LIKE ? ESCAPE '\\' OR label LIKE ? ESCAPE '\\')"
                )
                values += [f"%{_escaped(term)}%"] * 3
        if not where:
            return {row[0] for row in self._rows("SELECT id FROM runs")}
        return {row[0] for row in self._rows(f"SELECT rowid FROM search WHERE {' AND '.join(where)}", values)}

    def prompts(self, query: str = "", limit: int = 500) -> list[str]:
        """Prompts that were run, newest first, each once.

        Args:
            query: As for `search`; only prompts that hold every term themselves are returned then.
            limit: How many at most.
        """
        terms = [(quoted or plain).lower() for quoted, plain in _TERM.findall(query)]
        if terms:
            found = sorted(self.search(query), reverse=True)[: 4 * limit]
            marks = ",".join("?" * len(found))
            rows = self._rows(
                f"SELECT prompt FROM search WHERE rowid IN ({marks}) ORDER BY rowid DESC", found
            )
        else:
            rows = self._rows("SELECT prompt FROM search ORDER BY rowid DESC LIMIT ?", (4 * limit,))
        texts = dict.fromkeys(row[0] for row in rows)
        return [text for text in texts if text and all(term in text.lower() for term in terms)][:limit]

    def load(self, run: int, tokens: int | None = None) -> StoredRun:
        """Everything about a run.

        Args:
            run: Which.
            tokens: About how many are enough; all when None.

        Raises:
            HistoryError: there is none, or its tokens are damaged.
        """
        with self._still():
            return self._load(run, tokens)

    def _load(self, run: int, tokens: int | None) -> StoredRun:
        entry = self.entry(run)
        request, started, finished, models, versions, message = self._rows(
            "SELECT request, started, finished, models, versions, message FROM details WHERE run = ?", (run,)
        )[0]
        changes = self._rows(
            "SELECT position, name, value, version FROM changes WHERE run = ? ORDER BY rowid", (run,)
        )
        try:
            batches = self._batches(run, tokens)
            kept = batches.pop(_KEPT, None)
            return StoredRun(
                entry=entry,
                request=build(Request, json.loads(request)),
                started=build(Started, json.loads(started)) if started else None,
                finished=build(Finished, json.loads(finished)) if finished else None,
                models={role: build(Loaded, model) for role, model in json.loads(models).items()},
                versions=json.loads(versions),
                changes=tuple(Change(*change) for change in changes),
                kept=kept,
                batches=tuple(batches.values()),
                message=message,
            )
        except (TypeError, ValueError) as error:
            raise HistoryError(f"Run {entry.uid} cannot be read: {error}.") from error

    def _batches(self, run: int, tokens: int | None) -> dict[int, TokenBatch]:
        """Chunks by number, until there are tokens enough."""
        found: dict[int, TokenBatch] = {}
        numbers = self._rows("SELECT number FROM chunks WHERE run = ? ORDER BY number", (run,))
        for (number,) in numbers:
            packed = self._rows("SELECT data FROM chunks WHERE run = ? AND number = ?", (run, number))
            found[number] = columns.unpack(packed[0][0], run)
            if tokens is not None and (tokens := tokens - len(found[number])) <= 0:
                break
        return found

    # What ids meant.

    def known_pieces(self, model: str) -> set[int]:
        """Ids whose text is kept."""
        return {row[0] for row in self._rows(_PIECES.format("token"), (_clean(model),))}

    def add_pieces(self, model: str, pieces: Mapping[int, str]) -> None:
        """Keeps the texts of ids."""
        model = _clean(model)
        with self.transaction():
            self._run("INSERT OR IGNORE INTO vocabularies (model) VALUES (?)", (model,))
            (vocabulary,) = self._rows("SELECT id FROM vocabularies WHERE model = ?", (model,))[0]
            self._connection.executemany(
                "INSERT OR REPLACE INTO pieces (vocabulary, token, text) VALUES (?, ?, ?)",
                [(vocabulary, token, _clean(text)) for token, text in pieces.items()],
            )

    def pieces(self, model: str) -> dict[int, str]:
        """Texts by id, of those that were ever seen."""
        return dict(self._rows(_PIECES.format("token, text"), (_clean(model),)))

    # Runs whose process is gone.

    def orphans(self, now: float) -> list[Entry]:
        """Runs that were being written by a process that is no more, newest first."""
        rows = self._rows(
            f"SELECT owner, beat, {_ENTRY} FROM runs WHERE state = 'running' ORDER BY created DESC, id DESC"
        )
        return [Entry(*row[2:]) for row in rows if not process_identity.alive(row[0], row[1], now)]

    def interrupt(self, entry: Entry, answer: str) -> Entry:
        """Marks such a run as what it is, to be offered once."""
        with self.transaction():
            self.finish(entry.id, "interrupted", answer)
            self._run("UPDATE runs SET seen = 0 WHERE id = ?", (entry.id,))
        return self.entry(entry.id)

    def offer(self) -> Entry | None:
        """The newest interrupted run, if it has not been offered before; none is offered twice."""
        with self.transaction():
            found = self._rows(
                f"SELECT {_ENTRY} FROM runs WHERE NOT seen ORDER BY created DESC, id DESC LIMIT 1"
            )
            if found:
                self._run("UPDATE runs SET seen = 1 WHERE NOT seen")
        return Entry(*found[0]) if found else None


_PIECES = "SELECT {} FROM pieces JOIN vocabularies ON vocabularies.id = vocabulary WHERE model = ?"


def _clean(text: str) -> str:
    """Text that SQLite takes and its index reads to the end: no lone surrogates, no NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "␀")


def _escaped(term: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", term)
