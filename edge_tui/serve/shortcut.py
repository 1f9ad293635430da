"""Calls an endpoint past FastAPI's routing if the request's body is valid. Plain ASGI middleware.

FastAPI matches, resolves and wraps each request, which takes about as long as `/infer` itself. Every other
request passes through FastAPI, and is answered or refused there.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, get_type_hints

from fastapi import APIRouter, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    Endpoint = Callable[[Any, Request], Awaitable[Response]]


class Shortcut:
    """Validates bodies of known paths and calls their endpoints directly.

    Args:
        app: FastAPI, for every other request.
        endpoints: By path, the model of the body and the endpoint.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, tuple[type[BaseModel], Endpoint]]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._endpoints.get(scope["path"]) if _is_json(scope) else None
        if known is None:
            await self._app(scope, receive, send)
            return
        shape, endpoint = known
        request = Request(scope, receive, send)
        try:
            raw = await request.body()
        except ClientDisconnect:
            return
        try:
            body = shape.model_validate(json.loads(raw))
        except (ValueError, RecursionError):
            await self._app(scope, _replay(raw, receive), send)
            return
        response = await endpoint(body, request)
        await response(scope, receive, send)


def endpoints(*routers: APIRouter) -> dict[str, tuple[type[BaseModel], Endpoint]]:
    """Finds the endpoints that take only a body and the request, and return a response.

    Errors that they raise must be `ApiError`s.
    """
    found = {}
    for route in (route for router in routers for route in router.routes):
        if isinstance(route, APIRoute) and route.methods == {"POST"} and not route.dependencies:
            body, *others = get_type_hints(route.endpoint).values()
            if others == [Request, Response] and isinstance(body, type) and issubclass(body, BaseModel):
                found[route.path] = body, route.endpoint
    return found


def _is_json(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    kinds = (value for name, value in scope["headers"] if name == b"content-type")
    return next(kinds, b"") == b"application/json"


def _replay(raw: bytes, receive: Receive) -> Receive:
    """Returns a `receive` that repeats a body that has been read."""
    body: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def read() -> Message:
        return body.pop() if body else await receive()

    return read
