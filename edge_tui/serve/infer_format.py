"""Formats `/infer`'s answers: as one object, as an event for each token, or as columns of tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from edge_tui.engine import events
from edge_tui.engine.remote import codec
from edge_tui.serve.errors import of_failure
from edge_tui.serve.response_accumulator import ResponseAccumulator, tokens_of
from edge_tui.serve.stream import format_event

if TYPE_CHECKING:
    from edge_tui.serve.dispatcher import QueueSlot
    from edge_tui.serve.schemas import Infer, InferStream

Batches = AsyncIterator[list[events.Event]]
Decode = Callable[[Sequence[int]], list[str]]


async def columns(stream_id: str, batches: Batches, decode: Decode) -> AsyncIterator[str]:
    """Yields every event of the engine as `edge_tui.engine.remote.codec` writes it."""
    sent: set[int] = set()
    async for batch in batches:
        parts = []
        for event in batch:
            if isinstance(event, events.TokenBatch):
                parts.append(format_event(codec.write_tokens(event, sent, decode), "tokens"))
            elif isinstance(event, events.Failed):
                parts.append(format_event(of_failure(event).body(), "error"))
            elif written := codec.write_event(event):
                parts.append(_format(stream_id, *written))
        if parts:
            yield "".join(parts)


async def tokens(
    stream_id: str, batches: Batches, slot: QueueSlot, body: InferStream, decode: Decode
) -> AsyncIterator[str]:
    """Yields `start`, a `token` for each token, `change`, and `end` or `error`."""
    answer = ResponseAccumulator(body.n)
    async for batch in batches:
        parts = []
        for event in batch:
            answer.add(event)
            match event:
                case events.Started() | events.ParamChanged():
                    if written := codec.write_event(event):
                        parts.append(_format(stream_id, *written))
                case events.TokenBatch() if answer.started is not None:
                    objects = _token_objects(event, answer.started.columns, body.alternatives, decode)
                    parts += [format_event(token, "token") for token in objects]
                case events.Finished():
                    parts.append(format_event({**output(body, answer), **details(answer, slot)}, "end"))
                case events.Failed():
                    parts.append(format_event(of_failure(event).body(), "error"))
        if parts:
            yield "".join(parts)


def output(body: Infer, answer: ResponseAccumulator) -> dict[str, Any]:
    """Returns the answer's text, or texts."""
    outputs = [choice.text for choice in answer.choices] or [""]
    return {"output": outputs[0], **({"outputs": outputs} if body.n > 1 else {})}


def details(answer: ResponseAccumulator, slot: QueueSlot) -> dict[str, Any]:
    """Returns seed, parameters, counts, speed and finish reasons."""
    started, finished = answer.started, answer.finished
    assert finished is not None
    reasons = [choice.reason for choice in answer.choices]
    found: dict[str, Any] = {
        "finish_reasons": ["time" if it == "cancelled" and slot.timed_out else it for it in reasons],
        "new_tokens": finished.new_tokens,
        "time_to_first_token": finished.time_to_first_token,
        "seconds": finished.seconds,
        "tokens_per_second": finished.tokens_per_second,
        "notices": answer.notices,
    }
    if finished.ranked:
        found["scores"] = [choice.score for choice in answer.choices]
    if started is not None:
        names = ("model", "strategy", "seed", "prompt_tokens")
        found |= {name: getattr(started, name) for name in names}
        found["params"] = codec.write_params(started.values)
    return found


def _format(stream_id: str, name: str, data: dict[str, Any]) -> str:
    return format_event({"id": stream_id, **data} if name == "start" else data, name)


def _token_objects(
    batch: events.TokenBatch, names: tuple[str, ...], top: int, decode: Decode
) -> list[dict[str, Any]]:
    ids = sorted({int(i) for i in batch.top_ids[:, :top].flat if i >= 0})
    texts = dict(zip(ids, decode(ids), strict=True))
    extras = batch.extras.tolist()
    return [
        {
            "index": int(batch.step[i]),
            "row": token.row,
            "parent": int(batch.parent[i]),
            "id": token.id,
            "text": token.text,
            "logprob": token.logp,
            "final_logprob": float(batch.final_logp[i]),
            "rank": int(batch.rank[i]),
            "entropy": float(batch.entropy[i]),
            "alternatives": [
                {"id": other, "text": texts[other], "logprob": logp} for other, logp in token.top
            ],
            **dict(zip(names, extras[i], strict=True)),
        }
        for i, token in enumerate(tokens_of(batch, top))
    ]
