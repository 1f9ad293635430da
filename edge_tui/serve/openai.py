"""Serves `/v1`: OpenAI's API over this engine.

Fields that would change the answer and cannot be honoured are refused with a sentence. Requests have two more
fields, `strategy` and `params` (the official client sends them as `extra_body`); responses have `edge_tui`
with the seed and the parameters that were used.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from edge_tui.serve import chat, completions
from edge_tui.serve.errors import ApiError, model_not_found
from edge_tui.serve.schemas import Chat, Completion

if TYPE_CHECKING:
    from edge_tui.serve.dispatcher import Dispatcher
    from edge_tui.serve.options import Options
    from edge_tui.serve.request_builder import RequestBuilder
    from edge_tui.serve.roles import Roles
    from edge_tui.serve.schemas import OpenAiRequest

_STREAMED: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/event-stream": {}}, "description": "The answer."}
}


def router(dispatcher: Dispatcher, builder: RequestBuilder, options: Options) -> APIRouter:
    """Returns the routes."""
    routes = APIRouter(tags=["openai"], prefix="/v1")
    start_time = int(time.time())

    def model() -> dict[str, Any]:
        loaded = dispatcher.roles.loaded.get("model")
        entry = {"id": dispatcher.roles.name, "object": "model", "created": start_time}
        limit = {"max_model_len": loaded.context} if loaded is not None else {}
        return {**entry, "owned_by": "edge-tui", **limit}

    @routes.get("/models", summary="The model that answers")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [model()]}

    @routes.get("/models/{name:path}", summary="The same by name")
    async def one_model(name: str) -> dict[str, Any]:
        check_model(name, dispatcher.roles)
        return model()

    @routes.post("/completions", summary="Continue texts", response_class=Response, responses=_STREAMED)
    async def complete(body: Completion, request: Request) -> Response:
        check_model(body.model, dispatcher.roles)
        check_common(body)
        return await completions.respond(body, request, dispatcher, builder, options)

    @routes.post(
        "/chat/completions",
        summary="Answer a conversation",
        response_class=Response,
        responses=_STREAMED,
    )
    async def answer(body: Chat, request: Request) -> Response:
        check_model(body.model, dispatcher.roles)
        check_common(body)
        return await chat.respond(body, request, dispatcher, builder)

    return routes


def check_model(name: str | None, roles: Roles) -> None:
    """Refuses a model that this server does not have; no name is fine.

    Raises:
        ApiError: 404, with the name of the served one.
    """
    if name is not None and name not in roles.names:
        raise model_not_found(name, roles.name)


def check_common(body: OpenAiRequest) -> None:
    """Refuses fields that contradict each other.

    Raises:
        ApiError: with the field.
    """
    if body.stream_options is not None and not body.stream:
        raise ApiError(422, "stream_options only means something with stream: true.", "stream_options")
