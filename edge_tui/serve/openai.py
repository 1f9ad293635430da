"""Serves `/v1`: OpenAI's API over this engine.

Fields that would change the answer and cannot be honoured are refused with a sentence. Requests have two more
fields, `strategy` and `params` (the official client sends them as `extra_body`); responses have `edge_tui`
with the seed and the parameters that were used.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from edge_tui.engine import events, port
from edge_tui.serve.errors import ApiError, model_not_found
from edge_tui.serve.openai_format import ChatFormat, CompletionFormat
from edge_tui.serve.response_accumulator import ResponseAccumulator
from edge_tui.serve.schemas import Chat, Completion
from edge_tui.serve.stream import EventStream, client_id, json_response, run_while_connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from edge_tui.serve.dispatcher import Dispatcher, QueueSlot
    from edge_tui.serve.options import Options
    from edge_tui.serve.request_builder import RequestBuilder

DEFAULT_TOKENS = 16
"""New tokens of a completion that names no number: OpenAI's default."""
_CONTENT: dict[str, Any] = {"application/json": {}, "text/event-stream": {}}
_STREAMED: Any = {
    "response_class": Response,
    "responses": {200: {"content": _CONTENT, "description": "The answer."}},
}
"""Arguments of a route whose answer may be streamed."""


def router(dispatcher: Dispatcher, builder: RequestBuilder, options: Options) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(tags=["openai"], prefix="/v1")
    start_time = int(time.time())
    roles = dispatcher.roles

    def model() -> dict[str, Any]:
        loaded = roles.loaded.get("model")
        entry = {"id": roles.name, "object": "model", "created": start_time}
        limit = {"max_model_len": loaded.context} if loaded is not None else {}
        return {**entry, "owned_by": "edge-tui", **limit}

    def check_model(name: str | None) -> None:
        if name is not None and name not in roles.names:
            raise model_not_found(name, roles.name)

    def check(body: Chat | Completion) -> None:
        check_model(body.model)
        if body.stream_options is not None and not body.stream:
            raise ApiError(422, "stream_options only means something with stream: true.", "stream_options")

    async def respond(
        body: Chat | Completion,
        form: ChatFormat | CompletionFormat,
        requests: list[port.Request],
        http: Request,
    ) -> Response:
        """Decodes the requests of one body, and answers whole or as a stream."""
        slot = dispatcher.admit(client_id(http), body.model)
        if body.stream:
            first = await run_while_connected(http, slot.start(requests[0]))
            return EventStream(_chunks(form, requests, first, slot), slot)
        with closing(slot):
            answers = await run_while_connected(http, _decode_all(form, requests, slot))
        form.set_model(answers[0])
        choices: list[dict[str, Any]] = []
        for number, (engine_request, answer) in enumerate(zip(requests, answers, strict=True)):
            choices += form.choices(number, engine_request, answer, slot)
        return json_response(form.response(choices, answers), slot)

    @routes.get("/models", summary="The model that answers")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model()]}

    @routes.get("/models/{name:path}", summary="The same by name")
    async def one_model(name: str) -> dict[str, Any]:
        check_model(name)
        return model()

    @routes.post("/completions", summary="Continue texts", **_STREAMED)
    async def complete(body: Completion, request: Request) -> Response:
        check(body)
        requests = _completion_requests(body, builder, options)
        return await respond(body, CompletionFormat(body, dispatcher), requests, request)

    @routes.post("/chat/completions", summary="Answer a conversation", **_STREAMED)
    async def answer(body: Chat, request: Request) -> Response:
        check(body)
        return await respond(body, ChatFormat(body, dispatcher), [_chat_request(body, builder)], request)

    return routes


def _chat_request(body: Chat, builder: RequestBuilder) -> port.Request:
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(422, "top_logprobs needs logprobs: true.", "top_logprobs")
    requested = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    turns = [turn.message() for turn in body.messages]
    tokens = builder.max_new_tokens(requested)
    return builder.build(body, turns, max_length=tokens, chat=None, logprobs=body.logprobs)


def _completion_requests(body: Completion, builder: RequestBuilder, options: Options) -> list[port.Request]:
    """Builds one engine request for each prompt.

    Raises:
        ApiError: something cannot be honoured.
    """
    prompts = _prompts(body)
    if len(prompts) > options.prompts:
        raise ApiError(
            422, f"{len(prompts)} prompts were sent, but a request takes at most {options.prompts}.", "prompt"
        )
    if body.best_of not in (None, body.n):
        raise ApiError(422, "best_of other than n is not supported: leave it out.", "best_of", "unsupported")
    tokens = builder.max_new_tokens(body.max_tokens, DEFAULT_TOKENS)
    if tokens == 0 and not body.echo:
        raise ApiError(422, "max_tokens is 0, which only means something with echo: true.", "max_tokens")
    logprobs = body.logprobs is not None
    return [
        builder.build(
            body,
            prompt,
            max_length=tokens,
            chat=False,
            logprobs=logprobs,
            prompt_logps=body.echo and (tokens == 0 or logprobs or not isinstance(prompt, str)),
        )
        for prompt in prompts
    ]


def _prompts(body: Completion) -> list[str | list[int]]:
    """Returns the prompts: a list of numbers is one prompt, a list of anything else is several."""
    prompt = body.prompt
    if isinstance(prompt, str):
        return [prompt]
    ids = [token for token in prompt if isinstance(token, int)]
    several = [item for item in prompt if not isinstance(item, int)]
    if not ids and not several:
        raise ApiError(400, "The prompt is an empty list: give at least one text.", "prompt", "empty_prompt")
    return [ids] if ids else list(several)


async def _decode_all(
    form: ChatFormat | CompletionFormat, requests: list[port.Request], slot: QueueSlot
) -> list[ResponseAccumulator]:
    return [await slot.decode(request, ResponseAccumulator(form.n, form.top)) for request in requests]


async def _chunks(
    form: ChatFormat | CompletionFormat,
    requests: list[port.Request],
    first: AsyncIterator[list[events.Event]],
    slot: QueueSlot,
) -> AsyncIterator[str]:
    """Yields the answers of all prompts one after the other, a chunk for each token."""
    answers = []
    for number, request in enumerate(requests):
        answer = ResponseAccumulator(form.n, form.top)
        answers.append(answer)
        async for batch in first if number == 0 else slot.run(request):
            choices = []
            for event in batch:
                choices += [form.token(token) for token in answer.add(event)]
                if isinstance(event, events.Started):
                    choices += form.opening(number, request, answer)
                if isinstance(event, events.Finished):
                    choices += form.ending(answer, slot)
            if choices:
                yield "".join(map(form.chunk, choices))
        if answer.failed is not None:
            break
    yield form.end(answers)
