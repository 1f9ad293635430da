"""Serves `/infer` and `/infer/stream`: a prompt in, a text out, with everything that the engine offers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from edge_tui.decoders.base import ParamError
from edge_tui.engine.remote import codec
from edge_tui.serve import generation, infer_format
from edge_tui.serve.errors import ApiError
from edge_tui.serve.response_accumulator import ResponseAccumulator
from edge_tui.serve.schemas import Infer, InferStream, SetParameter
from edge_tui.serve.stream import EventStream, json_response, run_while_connected

if TYPE_CHECKING:
    from edge_tui.engine import port
    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.request_builder import RequestBuilder

DEFAULT_TOKENS = 100
"""New tokens where neither a request nor the operator names a number."""


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
        engine_request = _engine_request(builder, body)
        with dispatcher.admit(generation.client_id(request)) as slot:
            work = generation.decode(slot, engine_request, ResponseAccumulator(body.n))
            answer = await run_while_connected(request, work)
            return json_response(_output(body, answer, slot), slot)

    @routes.post(
        "/infer/stream",
        summary="Decode a prompt, token by token",
        response_class=Response,
        responses={200: {"content": {"text/event-stream": {}}, "description": "start, token …, end"}},
    )
    async def infer_stream(body: InferStream, request: Request) -> Response:
        engine_request = _engine_request(builder, body)
        slot = dispatcher.admit(generation.client_id(request))
        stream_id = secrets.token_hex(12)
        decode = dispatcher.engine.decode
        if body.format == "columns":  # starts at once: its client wants to see the prompt being read
            chunks = infer_format.columns(stream_id, slot.run(engine_request), decode)
        else:
            batches = await run_while_connected(request, generation.start(slot, engine_request))
            chunks = infer_format.tokens(stream_id, batches, slot, body, decode)

        async def registered() -> AsyncIterator[str]:
            live[stream_id] = slot
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                live.pop(stream_id, None)

        return EventStream(registered(), slot)

    @routes.post("/infer/stream/{generation}/params", summary="Set a parameter while tokens come")
    async def set_parameter(generation: str, body: SetParameter) -> dict[str, bool]:
        if (slot := live.get(generation)) is None:
            raise ApiError(
                404, "There is no such generation any more; parameters of a finished one are fixed."
            )
        try:
            slot.set(body.name, body.value)
        except ParamError as error:
            raise ApiError(422, str(error), body.name, "invalid_value") from error
        return {"ok": True}

    return routes


def _engine_request(builder: RequestBuilder, body: Infer) -> port.Request:
    prompt = body.prompt
    turns = [turn.message() for turn in prompt if not isinstance(turn, int | str)]
    fields = codec.request_fields(body)
    fields["max_length"] = builder.max_new_tokens(body.max_length, DEFAULT_TOKENS)
    if body.chat is None:
        fields["chat"] = builder.settings.chat
    return builder.build(
        prompt if isinstance(prompt, str) else turns or [token for token in prompt if isinstance(token, int)],
        **fields,
        length_key="max_length",
    )


def _output(body: Infer, answer: ResponseAccumulator, slot: QueueSlot) -> dict[str, Any]:
    return infer_format.output(body, answer) | (infer_format.details(answer, slot) if body.details else {})
