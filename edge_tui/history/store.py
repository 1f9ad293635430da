"""Holds the SQL of the history: inserts, lists, finds, reads and deletes runs."""

from __future__ import annotations

import json
import re
import time
from dataclasses import fields
from typing import TYPE_CHECKING

from edge_tui.engine.events import Finished, Loaded, ParamChanged, Started, TokenBatch
from edge_tui.engine.port import Request
from edge_tui.history import columns, process_identity
from edge_tui.history.database import Database
from edge_tui.history.runs import Entry, StoredRun, preview, prompt_of, to_json
from edge_tui.history.schema import HistoryError
from edge_tui.util.dataclass_json import build

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from edge_tui.history.runs import State

_ENTRY = ", ".join(field.name for field in fields(Entry))
_NEWEST = "ORDER BY created DESC, id DESC"
_PREFIX = -1
_TERM = re.compile(r'"([^"]+)"|(\S+)')
_TRIGRAM = 3
"""Shortest term that the index can look up."""


class Store(Database):
    """Writes, lists, finds, reads and deletes runs.

    Args:
        path: The file; None for a history in memory.
        problem: A sentence for the user about the file, "" where all is well.
        connection: Used as it is, instead of one that is opened and brought up to date.

    Raises:
        HistoryError, sqlite3.Error, OSError: the file cannot be used; see `salvage.open_store`.
    """

    def __init__(
        self, path: Path | None = None, *, problem: str = "", connection: sqlite3.Connection | None = None
    ) -> None:
        super().__init__(path, connection)
        self.problem = problem

    # Writing.

    def insert_run(self, uid: str, created: float, request: Request, state: State = "running") -> int:
        """Adds a run that was requested; returns its id within this history."""
        prompt, own = _clean(prompt_of(request)), process_identity.own()
        with self.transaction():
            run = self.insert(
                "runs",
                uid=uid,
                created=created,
                state=state,
                strategy=request.strategy,
                prompt=_clean(preview(prompt_of(request))),
                owner=own,
                beat=time.time(),
            )
            self.insert("details", run=run, request=to_json(request))
            self.insert("search", rowid=run, prompt=prompt, answer="", label="")
        return run

    def set_started(
        self, run: int, started: Started, models: Mapping[str, Loaded], versions: Mapping[str, str]
    ) -> None:
        """Adds the resolved settings, the models by role and the programs' versions."""
        main = models.get("model") or next(iter(models.values()), None)
        name = main.name if main is not None else ""
        with self.transaction():
            self.update("runs", run, model=_clean(name), strategy=started.strategy)
            self.update(
                "details", run, started=to_json(started), models=to_json(models), versions=to_json(versions)
            )

    def set_turn(self, run: int, conversation: str, turn: int, parent: str) -> None:
        """Makes a run a turn of a conversation; `parent` is the uid of the run of the turn before."""
        self.update("runs", run, conversation=conversation, turn=turn, parent=parent)

    def append_prefix(self, run: int, prefix: TokenBatch) -> None:
        """Adds the tokens that the run continues."""
        with self.transaction():
            self._put(run, _PREFIX, prefix)
            self.execute("UPDATE runs SET tokens = tokens + ? WHERE id = ?", (len(prefix), run))

    def heartbeat(self, runs: Iterable[int], now: float) -> None:
        """Dates the newest sign of life of runs under way."""
        with self.transaction():
            self.execute_many("UPDATE runs SET beat = ? WHERE id = ?", [(now, run) for run in runs])

    def append_chunk(self, run: int, number: int, batch: TokenBatch, *, replacing: int = 0) -> None:
        """Adds tokens of the run's own.

        Args:
            run: Their run.
            number: Of the chunk; the next one, or the first of those that it replaces.
            batch: The tokens.
            replacing: Count of chunks from `number` on that this one replaces.
        """
        with self.transaction():
            if replacing:
                self.execute(
                    "DELETE FROM chunks WHERE run = ? AND number >= ? AND number < ?",
                    (run, number, number + replacing),
                )
            else:
                self.execute("UPDATE runs SET tokens = tokens + ? WHERE id = ?", (len(batch), run))
            self._put(run, number, batch)

    def _put(self, run: int, number: int, batch: TokenBatch) -> None:
        values = (run, number, columns.pack(batch))
        self.execute("INSERT OR REPLACE INTO chunks (run, number, data) VALUES (?, ?, ?)", values)

    def append_changes(self, run: int, changes: Iterable[ParamChanged]) -> None:
        """Adds new values of parameters."""
        with self.transaction():
            self.execute_many(
                "INSERT INTO changes (run, position, name, value, version) VALUES (?, ?, ?, ?, ?)",
                [(run, each.index, each.name, each.value, each.version) for each in changes],
            )

    def finish_run(
        self, run: int, state: State, answer: str, finished: Finished | None = None, message: str = ""
    ) -> None:
        """Sets how the run ended.

        Args:
            run: The run.
            state: Its final state.
            answer: Its text.
            finished: The engine's report, if there is one.
            message: The error, for a failed one.
        """
        reason, seconds = (finished.reason, finished.seconds) if finished else ("", 0.0)
        with self.transaction():
            self.update(
                "runs", run, state=state, reason=reason, seconds=seconds, answer=_clean(preview(answer))
            )
            if finished is not None:
                self.update("details", run, finished=to_json(finished))
            if message:
                self.update("details", run, message=_clean(message))
            ((label,),) = self.rows("SELECT model || ' ' || strategy FROM runs WHERE id = ?", (run,))
            self.update("search", run, answer=_clean(answer), label=label)

    def import_run(self, stored: StoredRun, answer: str) -> Entry:
        """Adds a run that comes from elsewhere.

        Raises:
            HistoryError: it is there already.
        """
        entry = stored.entry
        if self.rows("SELECT 1 FROM runs WHERE uid = ?", (entry.uid,)):
            raise HistoryError(f"The run {entry.uid} is in the history already.")
        with self.transaction():
            run = self.insert_run(entry.uid, entry.created, stored.request, entry.state)
            self.set_turn(run, entry.conversation, entry.turn, entry.parent)
            if stored.started is not None:
                self.set_started(run, stored.started, stored.models, stored.versions)
            if stored.prefix is not None:
                self.append_prefix(run, stored.prefix)
            for number, batch in enumerate(stored.batches):
                self.append_chunk(run, number, batch)
            self.append_changes(run, stored.changes)
            state: State = "interrupted" if entry.state == "running" else entry.state
            self.finish_run(run, state, answer, stored.finished, stored.message)
            if stored.token_strings:
                # A file may not change what this machine's own model says of an id.
                known = self.token_string_ids(entry.model)
                fresh = {id: text for id, text in stored.token_strings.items() if id not in known}
                self.add_token_strings(entry.model, fresh)
        return self.entry(run)

    def delete(self, run: int) -> None:
        """Removes a run and everything about it."""
        with self.transaction():
            self.execute("DELETE FROM runs WHERE id = ?", (run,))
            self.execute("DELETE FROM search WHERE rowid = ?", (run,))
        self.rows("PRAGMA incremental_vacuum")

    # Reading.

    def runs(self) -> list[Entry]:
        """Lists all runs, newest first."""
        return self._entries(_NEWEST)

    def entry(self, run: int) -> Entry:
        """Returns one line of the list.

        Raises:
            HistoryError: there is none.
        """
        if found := self._entries("WHERE id = ?", run):
            return found[0]
        raise HistoryError(f"The history has no run {run}; `edge-tui history list` shows those it has.")

    def entries(self, runs: Collection[int]) -> dict[int, Entry]:
        """Reads lines of the list by the run's id; those of deleted runs are not among them."""
        marks = ", ".join("?" * len(runs))
        return {entry.id: entry for entry in self._entries(f"WHERE id IN ({marks})", *runs)}

    def find(self, uid: str) -> Entry | None:
        """Finds a run by the beginning of its uid, if there is exactly one."""
        found = self._entries("WHERE uid LIKE ? LIMIT 2", f"{uid}%") if uid.isalnum() else []
        return found[0] if len(found) == 1 else None

    def _entries(self, which: str, *values: object) -> list[Entry]:
        return [Entry(*row) for row in self.rows(f"SELECT {_ENTRY} FROM runs {which}", values)]

    def search(self, query: str) -> set[int]:
        """Finds runs that hold every term of the query in prompt, answer, model or strategy; returns ids.

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
            return {row[0] for row in self.rows("SELECT id FROM runs")}
        return {row[0] for row in self.rows(f"SELECT rowid FROM search WHERE {' AND '.join(where)}", values)}

    def prompts(self, query: str = "", limit: int = 500) -> list[str]:
        """Lists prompts that were run, newest first, each once.

        Args:
            query: As for `search`; only prompts that hold every term themselves are returned then.
            limit: Most prompts to return.
        """
        terms = [(quoted or plain).lower() for quoted, plain in _TERM.findall(query)]
        if terms:
            found = sorted(self.search(query), reverse=True)[: 4 * limit]
            marks = ",".join("?" * len(found))
            rows = self.rows(f"SELECT prompt FROM search WHERE rowid IN ({marks}) ORDER BY rowid DESC", found)
        else:
            rows = self.rows("SELECT prompt FROM search ORDER BY rowid DESC LIMIT ?", (4 * limit,))
        texts = dict.fromkeys(row[0] for row in rows)
        return [text for text in texts if text and all(term in text.lower() for term in terms)][:limit]

    def load(self, run: int, tokens: int | None = None) -> StoredRun:
        """Reads everything about a run.

        Args:
            run: Its id.
            tokens: About how many are enough; all when None.

        Raises:
            HistoryError: there is none, or its tokens are damaged.
        """
        with self.transaction("BEGIN"):
            entry = self.entry(run)
            request, started, finished, models, versions, message = self.rows(
                "SELECT request, started, finished, models, versions, message FROM details WHERE run = ?",
                (run,),
            )[0]
            changes = self.rows(
                "SELECT name, value, version, position FROM changes WHERE run = ? ORDER BY rowid", (run,)
            )
            try:
                batches = self._batches(run, tokens)
                prefix = batches.pop(_PREFIX, None)
                return StoredRun(
                    entry=entry,
                    request=build(Request, json.loads(request)),
                    started=build(Started, json.loads(started)) if started else None,
                    finished=build(Finished, json.loads(finished)) if finished else None,
                    models={role: build(Loaded, model) for role, model in json.loads(models).items()},
                    versions=json.loads(versions),
                    changes=tuple(ParamChanged(run, *change) for change in changes),
                    prefix=prefix,
                    batches=tuple(batches.values()),
                    message=message,
                )
            except (TypeError, ValueError) as error:
                raise HistoryError(f"Run {entry.uid} cannot be read: {error}.") from error

    def _batches(self, run: int, tokens: int | None) -> dict[int, TokenBatch]:
        """Reads chunks by number, until there are tokens enough."""
        found: dict[int, TokenBatch] = {}
        numbers = self.rows("SELECT number FROM chunks WHERE run = ? ORDER BY number", (run,))
        for (number,) in numbers:
            packed = self.rows("SELECT data FROM chunks WHERE run = ? AND number = ?", (run, number))
            found[number] = columns.unpack(packed[0][0], run)
            if tokens is not None and (tokens := tokens - len(found[number])) <= 0:
                break
        return found

    # Texts of ids.

    def token_string_ids(self, model: str) -> set[int]:
        """Returns the ids of a model whose text is in the history."""
        return {row[0] for row in self.rows(_TOKEN_STRINGS.format("token"), (_clean(model),))}

    def add_token_strings(self, model: str, texts: Mapping[int, str]) -> None:
        """Adds texts of a model's ids."""
        model = _clean(model)
        with self.transaction():
            self.execute("INSERT OR IGNORE INTO vocabularies (model) VALUES (?)", (model,))
            (vocabulary,) = self.rows("SELECT id FROM vocabularies WHERE model = ?", (model,))[0]
            self.execute_many(
                "INSERT OR REPLACE INTO pieces (vocabulary, token, text) VALUES (?, ?, ?)",
                [(vocabulary, token, _clean(text)) for token, text in texts.items()],
            )

    def token_strings(self, model: str) -> dict[int, str]:
        """Reads texts of a model's ids, of those that ever were in a run."""
        return dict(self.rows(_TOKEN_STRINGS.format("token, text"), (_clean(model),)))

    # Runs whose process is gone.

    def abandoned_runs(self, now: float) -> list[Entry]:
        """Lists runs whose process ended while it wrote them, newest first."""
        owners = self.rows("SELECT id, owner, beat FROM runs WHERE state = 'running'")
        gone = [id for id, owner, heartbeat in owners if not process_identity.is_alive(owner, heartbeat, now)]
        return [entry for entry in self._entries(f"WHERE state = 'running' {_NEWEST}") if entry.id in gone]

    def mark_interrupted(self, entry: Entry, answer: str) -> None:
        """Sets the state of such a run, to be offered once."""
        with self.transaction():
            self.finish_run(entry.id, "interrupted", answer)
            self.update("runs", entry.id, seen=0)

    def take_offer(self) -> Entry | None:
        """Returns the newest interrupted run, unless it was offered before; none is offered twice."""
        with self.transaction():
            found = self._entries(f"WHERE NOT seen {_NEWEST} LIMIT 1")
            self.execute("UPDATE runs SET seen = 1 WHERE NOT seen")
        return found[0] if found else None


_TOKEN_STRINGS = "SELECT {} FROM pieces JOIN vocabularies ON vocabularies.id = vocabulary WHERE model = ?"


def _clean(text: str) -> str:
    """Removes what SQLite and its index do not take: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\0", "␀")


def _escaped(term: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", term)
