"""Serves `/infer` and `/infer/stream`: a prompt in, a text out, with everything that the engine offers.

The answer is one object, an event for each token, or columns of tokens.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from edge_tui.decoders.base import ParamError
from edge_tui.engine import events
from edge_tui.engine.remote import codec
from edge_tui.serve.errors import ApiError, of_failure
from edge_tui.serve.explain import check_number, explanations
from edge_tui.serve.response_accumulator import ResponseAccumulator, tokens_of
from edge_tui.serve.schemas import Infer, InferStream, SetParameter
from edge_tui.serve.stream import EventStream, client_id, format_event, json_response, run_while_connected

if TYPE_CHECKING:
    from edge_tui.engine import port
    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.request_builder import RequestBuilder

Decode = Callable[[Sequence[int]], list[str]]
ServerEvent = tuple[str, dict[str, Any]]
"""Name and data of a server-sent event."""
Writer = Callable[[events.Event], list[ServerEvent]]
"""Returns the server-sent events that tell an event of the engine."""

_NO_GENERATION = "There is no such generation any more; parameters of a finished one are fixed."


def router(dispatcher: Dispatcher, builder: RequestBuilder) -> APIRouter:
    """Returns the routes.

    Args:
        dispatcher: Runs generations.
        builder: Applies defaults and limits.
    """
    routes = APIRouter(tags=["infer"])
    live: dict[str, QueueSlot] = {}
    """Slots of the streams in progress, by id."""

    @routes.post("/infer", summary="Decode a prompt")
    async def infer(body: Infer, request: Request) -> Response:
        engine_request = builder.generation(body)
        check_number(body.explain, engine_request)
        with closing(dispatcher.admit(client_id(request))) as slot:
            return json_response(await run_while_connected(request, _infer(slot, engine_request, body)), slot)

    @routes.post(
        "/infer/stream",
        summary="Decode a prompt, token by token",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "start, token …, end"}},
    )
    async def infer_stream(body: InferStream, request: Request) -> Response:
        """Streams one generation as server-sent events, by columns or by tokens."""
        engine_request = builder.generation(body, prompt_logps=body.prompt_logps)
        _check_explain(body, engine_request)
        slot = dispatcher.admit(client_id(request))
        stream_id, answer = secrets.token_hex(12), _accumulator(body, engine_request)
        decode = dispatcher.engine.decode
        if body.format == "columns":  # starts at once: its client wants to see the prompt being read
            batches, write = slot.run(engine_request), _column_writer(decode)
        else:
            batches = await run_while_connected(request, slot.start(engine_request))
            write = _token_writer(body, slot, decode, answer)

        async def chunks() -> AsyncIterator[str]:
            live[stream_id] = slot
            try:
                async for parts in _with_explanations(batches, write, slot, engine_request, answer, body):
                    if parts:
                        yield "".join(_format(stream_id, *part) for part in parts)
            finally:
                live.pop(stream_id, None)

        return EventStream(chunks(), slot)

    @routes.post("/infer/stream/{generation}/params", summary="Set a parameter while tokens come")
    async def set_parameter(generation: str, body: SetParameter) -> dict[str, bool]:
        if (slot := live.get(generation)) is None:
            raise ApiError(404, _NO_GENERATION)
        try:
            slot.set(body.name, body.value)
        except ParamError as error:
            raise ApiError(422, str(error), body.name, "invalid_value") from error
        return {"ok": True}

    return routes


def _check_explain(body: InferStream, request: port.Request) -> None:
    """Refuses explanations that a stream cannot bring.

    Raises:
        ApiError: they are too many, or asked for in columns.
    """
    check_number(body.explain, request)
    if body.explain is not False and body.format == "columns":
        raise ApiError(422, "Columns come without explanations: ask /explain for them.", "explain")


async def _with_explanations(
    batches: AsyncIterator[list[events.Event]],
    write: Writer,
    slot: QueueSlot,
    request: port.Request,
    answer: ResponseAccumulator,
    body: InferStream,
) -> AsyncIterator[list[ServerEvent]]:
    """Yields the server-sent events of each batch; explanations come before the end of a run.

    Args:
        batches: The engine's events.
        write: Turns one of them into server-sent events.
        slot: That of the generation; asks the questions.
        request: The generation's request.
        answer: Collects the tokens; it has all of them with the event of the end.
        body: Names the tokens to explain.
    """
    async for batch in batches:
        *before, last = map(write, batch)
        yield [*chain.from_iterable(before)]
        if isinstance(batch[-1], events.Finished):
            async for each in explanations(slot, request, answer.transcript, body.explain):
                yield [("explanation", each)]
        yield last


async def _infer(slot: QueueSlot, request: port.Request, body: Infer) -> dict[str, Any]:
    """Decodes a request; returns its output, with what was asked for beside it."""
    answer = await slot.decode(request, _accumulator(body, request))
    output = _output(body, answer) | (_details(answer, slot) if body.details else {})
    if body.explain is not False:
        asked = explanations(slot, request, answer.transcript, body.explain)
        output["explanations"] = [each async for each in asked]
    return output


def _accumulator(body: Infer, request: port.Request) -> ResponseAccumulator:
    return ResponseAccumulator(body.n, prefix=None if body.explain is False else request.prefix)


def _format(stream_id: str, name: str, data: dict[str, Any]) -> str:
    return format_event({"id": stream_id, **data} if name == "start" else data, name)


def _column_writer(decode: Decode) -> Writer:
    """Returns a writer of every event of the engine, as `edge_tui.engine.remote.codec` has it."""
    sent: set[int] = set()

    def write(event: events.Event) -> list[ServerEvent]:
        match event:
            case events.TokenBatch():
                return [("tokens", codec.write_tokens(event, sent, decode))]
            case events.PromptRead():
                return [("prompt", codec.write_prompt(event, sent, decode))]
            case events.Failed():
                return [("error", of_failure(event).body())]
        written = codec.write_event(event)
        return [written] if written is not None else []

    return write


def _token_writer(body: InferStream, slot: QueueSlot, decode: Decode, answer: ResponseAccumulator) -> Writer:
    """Returns a writer of `prompt`, `start`, a `token` for each token, `change`, and `end` or `error`."""

    def write(event: events.Event) -> list[ServerEvent]:
        """Turns one event into names and objects of server-sent events."""
        answer.add(event)
        match event:
            case events.Started() | events.ParamChanged() if written := codec.write_event(event):
                return [written]
            case events.PromptRead():
                return [("prompt", codec.write_prompt(event, set(), decode))]
            case events.TokenBatch() if answer.started is not None:
                objects = _token_objects(event, answer.started.columns, body.alternatives, decode)
                return [("token", each) for each in objects]
            case events.Finished():
                return [("end", _output(body, answer) | _details(answer, slot))]
            case events.Failed():
                return [("error", of_failure(event).body())]
        return []

    return write


def _output(body: Infer, answer: ResponseAccumulator) -> dict[str, Any]:
    """Returns the answer's text, or texts."""
    outputs = [choice.text for choice in answer.choices] or [""]
    return {"output": outputs[0], **({"outputs": outputs} if body.n > 1 else {})}


def _details(answer: ResponseAccumulator, slot: QueueSlot) -> dict[str, Any]:
    """Returns seeds, parameters, counts, speed and finish reasons."""
    started, finished = answer.started, answer.finished
    assert finished is not None
    reasons = [choice.reason for choice in answer.choices]
    facts: dict[str, Any] = {
        "finish_reasons": ["time" if it == "cancelled" and slot.timed_out else it for it in reasons],
        "new_tokens": finished.new_tokens,
        "time_to_first_token": finished.time_to_first_token,
        "seconds": finished.seconds,
        "tokens_per_second": finished.tokens_per_second,
        "notices": answer.notices,
    }
    if finished.proposing_ended is not None:
        facts["proposing_ended"] = finished.proposing_ended
    if finished.ranked:
        facts["scores"] = [choice.score for choice in answer.choices]
    if started is not None:
        names = ("model", "strategy", "seed", "prompt_tokens")
        facts |= {name: getattr(started, name) for name in names}
        if answer.seeds:
            facts["seeds"] = answer.seeds
        facts["params"] = codec.write_params(started.values)
    return facts


def _token_objects(
    batch: events.TokenBatch, names: tuple[str, ...], top: int, decode: Decode
) -> list[dict[str, Any]]:
    """Builds an object for each token of a batch."""
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
            "margin": float(batch.margin[i]),
            "candidate_count": int(batch.candidate_count[i]),
            "alternatives": [
                {"id": other, "text": texts[other], "logprob": logp} for other, logp in token.top
            ],
            **dict(zip(names, extras[i], strict=True)),
        }
        for i, token in enumerate(tokens_of(batch, top))
    ]
