"""A short way to an endpoint for what is well asked. Plain ASGI.

FastAPI matches, resolves and wraps each request, which takes about as long as all that `/infer` does of it. A
body of the right shape needs none of that. Whatever else comes takes the long way and is answered there.
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
    """Wraps an application.

    Args:
        app: Where the long way leads.
        endpoints: What there is a short way to: by path, what a body has to be and what answers it.
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
            await self._app(scope, _anew(raw, receive), send)
            return
        response = await endpoint(body, request)
        await response(scope, receive, send)


def endpoints(*routers: APIRouter) -> dict[str, tuple[type[BaseModel], Endpoint]]:
    """The endpoints that take nothing but a body and the request, and give a response that is ready.

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


def _anew(raw: bytes, receive: Receive) -> Receive:
    """`receive` for whoever wants to read a body that has been read."""
    body: list[Message] = [{"type": "http.request", "body": raw, "more_body": False}]

    async def read() -> Message:
        return body.pop() if body else await receive()

    return read
