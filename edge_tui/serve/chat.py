"""`/v1/chat/completions`: the next turn of a conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from edge_tui import decoders
from edge_tui.engine import events, port
from edge_tui.serve import stream
from edge_tui.serve.errors import ApiError, of_failure
from edge_tui.serve.infer import decode, headers, lane, opened
from edge_tui.serve.openai_format import Wording, bytes_of, finish_reason, ours, usage
from edge_tui.serve.response_accumulator import Answer, Token

if TYPE_CHECKING:
    from fastapi import Request
    from fastapi.responses import Response

    from edge_tui.serve.dispatcher import Dispatcher, Place
    from edge_tui.serve.request_builder import Asked
    from edge_tui.serve.schemas import Chat


async def respond(body: Chat, request: Request, dispatcher: Dispatcher, asked: Asked) -> Response:
    """Answers a request.

    Raises:
        ApiError: it is refused, or failed before its first token.
    """
    wanted = _wanted(body, asked)
    wording = Wording("chatcmpl", dispatcher.roles.name, dispatcher.engine.decode)
    place = dispatcher.admit(lane(request), body.model)
    if body.stream:
        try:
            batches = await stream.unless_gone(request, opened(place, wanted))
        except stream.Gone:
            return stream.gone()
        return stream.Events(_chunks(body, batches, place, wording), place, headers(place))
    with place:
        try:
            answer = await stream.unless_gone(
                request, decode(place, wanted, Answer(body.n, bool(body.logprobs), body.top_logprobs or 0))
            )
        except stream.Gone:
            return stream.gone()
    wording.written_by(answer.started)
    choices = [
        {
            "index": row,
            "message": {"role": "assistant", "content": text.text, "refusal": None},
            "logprobs": _logprobs(body, text.tokens, wording),
            "finish_reason": finish_reason(text.reason, place),
        }
        for row, text in enumerate(answer.texts)
    ]
    said = wording.body("chat.completion", choices, usage=usage([answer]), edge_tui=ours([answer]))
    return stream.answer(said, headers(place))


def _wanted(body: Chat, asked: Asked) -> port.Request:
    """The engine's request.

    Raises:
        ApiError: something cannot be honoured.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(422, "top_logprobs needs logprobs: true.", "top_logprobs")
    tokens = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    wanted = asked.request(
        [turn.message() for turn in body.messages],
        strategy=body.strategy,
        params=body.params,
        standard=body.standard(),
        tokens=asked.tokens(tokens),
        n=body.n,
        seed=body.seed,
        control_tokens=body.control_tokens,
        stop=body.stop,
        chat=None,
        template=body.chat_template_kwargs,
    )
    if body.logprobs and decoders.find(wanted.strategy).kind == "search":
        raise ApiError(
            422, "A search's answers come without logprobs: leave them out.", "logprobs", "unsupported"
        )
    return wanted


def _logprobs(body: Chat, tokens: list[Token], wording: Wording) -> Any:
    """OpenAI's list, one object for each token."""
    if not body.logprobs:
        return None
    tokens = [token for token in tokens if token.id >= 0]
    wording.learn({token.id for token in tokens} | {other for token in tokens for other, _ in token.top})

    def entry(token: int, logp: float | None) -> dict[str, Any]:
        text = wording.text(token)
        return {"token": text, "logprob": logp, "bytes": bytes_of(text)}

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
    body: Chat, batches: AsyncIterator[list[events.Event]], place: Place, wording: Wording
) -> AsyncIterator[str]:
    """The answer, a chunk for each token."""
    more = {"usage": None} if body.stream_options is not None and body.stream_options.include_usage else {}
    answer = Answer(body.n, top=body.top_logprobs or 0)

    def chunk(row: int, delta: dict[str, Any], tokens: list[Token], reason: str | None = None) -> str:
        logprobs = _logprobs(body, tokens, wording) if tokens else None
        choice = {"index": row, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return stream.message(wording.body("chat.completion.chunk", [choice], **more))

    async for batch in batches:
        parts = []
        for event in batch:
            parts += [chunk(token.row, {"content": token.text}, [token]) for token in answer.feed(event)]
            if isinstance(event, events.Started):
                wording.written_by(event)
                parts += [chunk(row, {"role": "assistant", "content": ""}, []) for row in range(body.n)]
            if isinstance(event, events.Finished):
                for row, text in enumerate(answer.texts):
                    if not answer.streams:
                        parts.append(chunk(row, {"content": text.text}, []))
                    parts.append(chunk(row, {}, [], finish_reason(text.reason, place)))
        if parts:
            yield "".join(parts)
    if answer.failed is not None:
        yield stream.message(of_failure(answer.failed).body())
    elif more:
        said = wording.body("chat.completion.chunk", [], usage=usage([answer]), edge_tui=ours([answer]))
        yield stream.message(said)
    yield "data: [DONE]\n\n"
