"""The engine's events as JSON, column by column: what one edge-tui tells another over the wire.

Nothing is lost on the way, so that a remote engine (`edge_tui.engine.remote`) can hand on the very events
that the local one of the server has posted. Texts of alternatives travel once for each token id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edge_tui.engine import events
from edge_tui.serve import stream
from edge_tui.serve.errors import of_failure

if TYPE_CHECKING:
    from numpy.typing import NDArray

Decode = Callable[[Sequence[int]], list[str]]

NUMBERS = (
    "step",
    "row",
    "parent",
    "id",
    "raw_logp",
    "final_logp",
    "rank",
    "entropy",
    "version",
    "top_ids",
    "top_logp",
    "final_ids",
    "final_top_logp",
    "extras",
)
"""Columns of a `TokenBatch` that hold numbers."""


async def chunks(name: str, batches: AsyncIterator[list[events.Event]], decode: Decode) -> AsyncIterator[str]:
    """A generation as server-sent events: start, tokens, first, change, notice, progress, end, error."""
    known: set[int] = set()
    async for batch in batches:
        parts = []
        for event in batch:
            match event:
                case events.Started():
                    parts.append(stream.message({"id": name, **started(event)}, "start"))
                case events.TokenBatch():
                    parts.append(stream.message(tokens(event, known, decode), "tokens"))
                case events.FirstToken():
                    parts.append(stream.message({"seconds": event.seconds}, "first"))
                case events.ParamChanged():
                    parts.append(stream.message(changed(event), "change"))
                case events.Noticed():
                    parts.append(stream.message({"message": event.message}, "notice"))
                case events.Progress():
                    told = {"what": event.what, "done": event.done, "total": event.total}
                    parts.append(stream.message({**told, "name": event.name}, "progress"))
                case events.Finished():
                    parts.append(stream.message(finished(event), "end"))
                case events.Failed():
                    parts.append(stream.message(of_failure(event).body(), "error"))
        if parts:
            yield "".join(parts)


def tokens(batch: events.TokenBatch, known: set[int], decode: Decode) -> dict[str, Any]:
    """A batch, with the texts of the ids that were not told before."""
    said: dict[str, Any] = {name: stream.finite(getattr(batch, name).tolist()) for name in NUMBERS}
    if batch.candidates is not None:
        said["candidates"] = stream.finite(batch.candidates.tolist())
    fresh = {int(i) for ids in (batch.id, batch.top_ids, batch.final_ids) for i in ids.flat if i >= 0} - known
    known |= fresh
    ids = sorted(fresh)
    return {**said, "text": batch.text, "pieces": [ids, decode(ids)]}


def pieces(ids: NDArray[Any], decode: Decode) -> dict[int, str]:
    """The display text of each id in an array."""
    wanted: Iterable[int] = {int(i) for i in ids.flat if i >= 0}
    listed = sorted(wanted)
    return dict(zip(listed, decode(listed), strict=True))


def started(event: events.Started) -> dict[str, Any]:
    """How a generation begins."""
    return {
        "strategy": event.strategy,
        "rows": event.rows,
        "columns": event.columns,
        "prompt_tokens": event.prompt_tokens,
        "prefix_tokens": event.prefix_tokens,
        "reused_tokens": event.reused_tokens,
        "max_new_tokens": event.max_new_tokens,
        "seed": event.seed,
        "params": {name: {"value": it.value, "source": it.source} for name, it in event.values.items()},
        "notices": event.notices,
        "thinking": event.thinking,
        "control_tokens": event.control_tokens,
        "end_ids": event.end_ids,
        "kept_texts": event.kept_texts,
        "model": event.model,
    }


def changed(event: events.ParamChanged) -> dict[str, Any]:
    """A parameter that was turned, and the first token it held for."""
    return {"name": event.name, "value": event.value, "version": event.version, "index": event.index}


def finished(event: events.Finished) -> dict[str, Any]:
    """How a generation ends."""
    return {
        "reason": event.reason,
        "new_tokens": event.new_tokens,
        "time_to_first_token": event.time_to_first_token,
        "seconds": event.seconds,
        "tail": event.tail,
        "reasons": event.reasons,
        "tails": event.tails,
        "peak_bytes": event.peak_bytes,
        "ranked": [{"tokens": it.tokens, "text": it.text, "score": it.score} for it in event.ranked],
    }
