"""Turns a stored run back into the transcript that the screen showed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from edge_tui.engine.events import Finished, Started
from edge_tui.transcript.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.history.runs import StoredRun
    from edge_tui.history.store import Store


def transcript_of(
    stored: StoredRun, decode: Callable[[Sequence[int]], list[str]] | None = None
) -> Transcript:
    """Replays a run. One without a recorded end counts as stopped where its tokens end.

    Args:
        stored: The run.
        decode: Texts of ids, for tokens of the prefix of which no more than the id is known.
    """
    started = started_of(stored)
    previous = None
    if stored.prefix is not None:
        previous = Transcript(replace(started, rows=1, prefix_tokens=0))
        previous.extend(stored.prefix)
    transcript = Transcript(started, previous, stored.request.prefix, decode)
    for batch in stored.batches:
        transcript.extend(batch)
    for each in stored.changes:
        transcript.change(each)
    transcript.finish(finished_of(stored))
    return transcript


def started_of(stored: StoredRun) -> Started:
    """Returns the event of a run's beginning; made up for a run that was cut off before it."""
    request = stored.request
    started = stored.started or Started(
        run=stored.entry.id,
        strategy=request.strategy,
        rows=1,
        columns=(),
        prompt_tokens=0,
        prefix_tokens=len(request.prefix),
        reused_tokens=0,
        max_new_tokens=request.max_length,
        seed=request.seed or 0,
        values={},
    )
    return replace(started, run=stored.entry.id)


def finished_of(stored: StoredRun) -> Finished:
    """Returns the event of a run's end; an interrupted run counts as cancelled."""
    own = sum(map(len, stored.batches))
    rows = stored.started.rows if stored.started is not None else 1
    return stored.finished or Finished(stored.entry.id, "cancelled", own // rows, 0.0, 0.0)


def recover(store: Store, now: float) -> list[int]:
    """Marks the runs that a vanished process left behind as interrupted, so that they can be found.

    Returns:
        Ids of those with a token at least, newest first; the others are removed.
    """
    found = []
    for run in store.abandoned_runs(now):
        if run.tokens:
            store.mark_interrupted(run, transcript_of(store.load(run.id)).text)
            found.append(run.id)
        else:
            store.delete(run.id)
    return found
