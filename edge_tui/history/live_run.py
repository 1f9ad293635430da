"""Buffers the tokens of a run under way, and hands them to the store in chunks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge_tui.history import columns
from edge_tui.history.restore import transcript_of
from edge_tui.transcript.run_state import RunState

if TYPE_CHECKING:
    from edge_tui.engine.events import TokenBatch
    from edge_tui.engine.port import Request
    from edge_tui.history.store import Store

CHUNK = 1024
"""Records after which small chunks become one: few rows, good compression, bounded memory."""


@dataclass(slots=True)
class LiveRun(RunState):
    """Holds the tokens of a run that are not yet in a large chunk.

    Attributes:
        uid: Its name, the same in every store.
        created: Seconds since 1970 at which it was requested.
        request: The request.
        id: Its number in the store; 0 until it is there.
        model: Name of the main model.
        tokens: Count of those in the store.
        batches: Tokens since the last write.
        texts: Of a single row, as much as has been written.
        token_ids: Ids of the tokens in merged chunks, and of their alternatives.
    """

    uid: str
    created: float
    request: Request
    id: int = 0
    model: str = ""
    tokens: int = 0
    batches: list[TokenBatch] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    token_ids: set[int] = field(default_factory=set)
    _small: list[TokenBatch] = field(default_factory=list)
    """The newest chunks in the store, which are to become one."""
    _next_number: int = 0

    @property
    def rows(self) -> int:
        """Rows decoded side by side."""
        return self.started.rows if self.started is not None else 1

    def insert(self, store: Store) -> None:
        """Adds the run to a store."""
        self.id = store.insert_run(self.uid, self.created, self.request)

    def move(self, store: Store) -> None:
        """Goes on in another store, which may hold the run's beginning."""
        entry = store.find(self.uid)
        if entry is not None:
            self.id = entry.id
        else:
            self.insert(store)
        self._next_number = len(store.load(self.id).batches)
        self._small.clear()

    def append_prefix(self, store: Store, prefix: TokenBatch) -> None:
        """Writes the tokens that the run continues."""
        store.append_prefix(self.id, prefix)
        self.texts.insert(0, "".join(prefix.text))
        self.tokens += len(prefix)

    def flush(self, store: Store) -> None:
        """Writes the tokens that came; merges chunks that have become many."""
        if not self.batches:
            return
        batch = columns.join(self.batches)
        store.append_chunk(self.id, self._next_number, batch)
        self.batches.clear()
        self._next_number += 1
        self.tokens += len(batch)
        self._small.append(batch)
        if self.rows == 1:
            self.texts.append("".join(batch.text))
        if sum(map(len, self._small)) >= CHUNK:
            self.merge_chunks(store)

    def merge_chunks(self, store: Store) -> None:
        """Replaces the small chunks in the store by one."""
        if not self._small:
            return
        batch, count = columns.join(self._small), len(self._small)
        self.token_ids.update(columns.token_ids([batch]))
        if count > 1:
            store.append_chunk(self.id, self._next_number - count, batch, replacing=count)
        self._small.clear()

    def answer(self, store: Store) -> str:
        """Returns the answer's text, once all tokens are written."""
        finished = self.finished
        if self.rows == 1:
            return "".join(self.texts) + (finished.tail if finished is not None else "")
        if finished is not None and finished.answer_text is not None:
            return finished.answer_text
        return transcript_of(store.load(self.id)).text
