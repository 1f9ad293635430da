"""Small transcripts for tests of widgets."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan

import numpy as np

from edge_tui.engine.events import TOP, Resolved, Started, TokenBatch
from edge_tui.transcript.transcript import Transcript

BEAM = ("score", "finished", "finished_parent", "finished_id", "over")


def started(rows: int = 1, columns: tuple[str, ...] = (), prefix: int = 0) -> Started:
    values = {"length_penalty": Resolved(1.0, "default")} if "score" in columns else {}
    return Started(1, "test", rows, columns, 5, prefix, 0, 256, 1, values)


def batch(
    texts: Sequence[str],
    start: int = 0,
    *,
    probabilities: Sequence[float] | None = None,
    parents: Sequence[int] | None = None,
    rows: int = 1,
    extras: Sequence[Sequence[float]] | None = None,
    candidates: Sequence[Sequence[float]] | None = None,
) -> TokenBatch:
    """Tokens in the order of (step, row). Ids count from 100; alternatives are 0 to 4.

    `candidates` holds the numbers of a token and its alternatives for each column, the same at every token.
    """
    n = len(texts)
    numbers = np.arange(n)
    row = (numbers % rows).astype(np.int32)
    ids = (100 + start * rows + numbers).astype(np.int32)
    p = np.array(probabilities if probabilities is not None else [0.95] * n, np.float32)
    top_ids = np.full((n, TOP), -1, np.int32)
    top_ids[:, 0] = ids
    top_ids[:, 1:6] = np.arange(5)
    top_logp = np.log(np.concatenate([p[:, None], np.outer((1 - p), 0.5 ** np.arange(1, TOP)) + 1e-9], 1))
    return TokenBatch(
        run=1,
        step=(start + numbers // rows).astype(np.int32),
        row=row,
        parent=np.array(parents, np.int32) if parents is not None else row,
        id=ids,
        raw_logp=np.log(p),
        final_logp=np.zeros(n, np.float32),
        rank=np.where(p > 0.5, 0, 12).astype(np.int32),
        entropy=(1 - p) * 3,
        version=np.zeros(n, np.int32),
        top_ids=top_ids,
        top_logp=top_logp.astype(np.float32),
        final_ids=top_ids,
        final_top_logp=top_logp.astype(np.float32),
        extras=np.array(extras if extras is not None else [()] * n, np.float32).reshape(n, -1),
        text=tuple(texts),
        candidates=_told(n, candidates) if candidates is not None else None,
    )


def _told(n: int, candidates: Sequence[Sequence[float]]) -> np.ndarray:
    told = np.full((n, len(candidates), 2, TOP), nan, np.float32)
    for k, column in enumerate(candidates):
        told[:, k, :, : len(column)] = column
    return told


def transcript_of(texts: Sequence[str], probabilities: Sequence[float] | None = None) -> Transcript:
    transcript = Transcript(started())
    transcript.extend(batch(texts, probabilities=probabilities))
    return transcript


def beam_step(
    transcript: Transcript,
    step: int,
    rows: Sequence[tuple[int, str, float]],
    ended: tuple[float, int] | None = None,
) -> None:
    """One step of a beam: (parent, text, score) of each row; what ended: (score, parent)."""
    end = (*ended, 99.0) if ended else (nan, -1.0, -1.0)
    extras = [(score, *(end if i == 0 else (nan, -1, -1)), 0) for i, (_, _, score) in enumerate(rows)]
    transcript.extend(
        batch(
            [text for _, text, _ in rows],
            step,
            parents=[parent for parent, _, _ in rows],
            rows=len(rows),
            extras=extras,
        )
    )
