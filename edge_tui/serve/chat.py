"""Answers `/v1/chat/completions`: decodes the next turn of a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from edge_tui.engine import events, port
from edge_tui.serve import generation
from edge_tui.serve.errors import ApiError
from edge_tui.serve.openai_format import OpenAiFormat, finish_reason, utf8_bytes
from edge_tui.serve.response_accumulator import ResponseAccumulator, Token
from edge_tui.serve.stream import EventStream, json_response, run_while_connected

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response

    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.request_builder import RequestBuilder
    from edge_tui.serve.schemas import Chat


async def respond(body: Chat, request: Request, dispatcher: Dispatcher, builder: RequestBuilder) -> Response:
    """Returns the response to a request.

    Raises:
        ApiError: it is refused, or failed before its first token.
    """
    engine_request = _engine_request(body, builder)
    form = OpenAiFormat(
        "chatcmpl", "chat.completion", "chat.completion.chunk", dispatcher, body.stream_options
    )
    slot = dispatcher.admit(generation.client_id(request), body.model)
    if body.stream:
        batches = await run_while_connected(request, generation.start(slot, engine_request))
        return EventStream(_chunks(body, batches, slot, form), slot)
    with slot:
        accumulator = ResponseAccumulator(body.n, body.logprobs, body.top_logprobs or 0)
        answer = await run_while_connected(request, generation.decode(slot, engine_request, accumulator))
    form.set_model(answer.started)
    choices = [
        {
            "index": row,
            "message": {"role": "assistant", "content": choice.text, "refusal": None},
            "logprobs": _logprobs(body, choice.tokens, form),
            "finish_reason": finish_reason(choice.reason, slot),
        }
        for row, choice in enumerate(answer.choices)
    ]
    return json_response(form.response(choices, [answer]), slot)


def _engine_request(body: Chat, builder: RequestBuilder) -> port.Request:
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(422, "top_logprobs needs logprobs: true.", "top_logprobs")
    requested = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    return builder.build(
        [turn.message() for turn in body.messages],
        strategy=body.strategy,
        values=body.params,
        openai_params=body.openai_params(),
        max_length=builder.max_new_tokens(requested),
        samples=body.n,
        seed=body.seed,
        control_tokens=body.control_tokens,
        stop=body.stop,
        chat=None,
        template=body.chat_template_kwargs,
        logprobs=body.logprobs,
    )


def _logprobs(body: Chat, tokens: list[Token], form: OpenAiFormat) -> Any:
    """Returns OpenAI's list, one object for each token."""
    if not body.logprobs:
        return None
    tokens = [token for token in tokens if token.id >= 0]
    form.load_texts(tokens)

    def entry(token: int, logp: float | None) -> dict[str, Any]:
        text = form.text(token)
        return {"token": text, "logprob": logp, "bytes": utf8_bytes(text)}

    return {
        "content": [
            {
                **entry(token.id, token.logp),
                "top_logprobs": [entry(other, logp) for other, logp in token.top],
            }
            for token in tokens
        ],
        "refusal": None,
    }


async def _chunks(
    body: Chat, batches: AsyncIterator[list[events.Event]], slot: QueueSlot, form: OpenAiFormat
) -> AsyncIterator[str]:
    """Yields the answer, a chunk for each token."""
    answer = ResponseAccumulator(body.n, top=body.top_logprobs or 0)

    def chunk(row: int, delta: dict[str, Any], tokens: list[Token], reason: str | None = None) -> str:
        logprobs = _logprobs(body, tokens, form) if tokens else None
        return form.chunk({"index": row, "delta": delta, "logprobs": logprobs, "finish_reason": reason})

    async for batch in batches:
        parts = []
        for event in batch:
            parts += [chunk(token.row, {"content": token.text}, [token]) for token in answer.add(event)]
            if isinstance(event, events.Started):
                form.set_model(event)
                parts += [chunk(row, {"role": "assistant", "content": ""}, []) for row in range(body.n)]
            if isinstance(event, events.Finished):
                for row, choice in enumerate(answer.choices):
                    if not answer.streams:
                        parts.append(chunk(row, {"content": choice.text}, []))
                    parts.append(chunk(row, {}, [], finish_reason(choice.reason, slot)))
        if parts:
            yield "".join(parts)
    yield form.end([answer])
