"""Answers that a client may walk away from: the moment it is gone, its generation stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import suppress
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi.responses import Response, StreamingResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi import Request
    from starlette.types import Message, Receive, Scope, Send

    from edge_tui.serve.dispatcher import Place

T = TypeVar("T")
READ_SECONDS = 60.0
"""How long a client may leave what was sent to it unread."""


class Gone(Exception):
    """Nobody is there to read the answer."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Does work for a client as long as it is connected.

    Raises:
        Gone: it hung up; the work was cancelled.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Gone
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def gone() -> Response:
    """What is answered to nobody."""
    return Response(status_code=499)


def message(data: Any, event: str = "") -> str:
    """One server-sent event with a JSON object."""
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {dumps(data)}\n\n"


def dumps(data: Any) -> str:
    """JSON on one line. It knows no infinity and no NaN: such numbers are null."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def finite(value: Any) -> Any:
    """The same with null in place of every number that is none."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


class Events(StreamingResponse):
    """Server-sent events of one generation; proxies are told to pass each on at once.

    Args:
        chunks: The events, as `message` writes them.
        place: ParamPatch back when the response ends, however it does.
        headers: Of the response.
    """

    def __init__(self, chunks: AsyncIterator[str], place: Place, headers: Mapping[str, str]) -> None:
        quiet = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_encoded(chunks), media_type="text/event-stream", headers={**quiet, **headers})
        self._place = place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def patient(message: Message) -> None:
            async with asyncio.timeout(READ_SECONDS):
                await send(message)

        try:
            with suppress(TimeoutError):  # the server hangs up on it
                await super().__call__(scope, receive, patient)
        finally:
            self._place.leave()


async def _encoded(chunks: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Text may hold lone surrogates from a strange tokenizer; UTF-8 cannot."""
    async for chunk in chunks:
        yield chunk.encode("utf-8", "replace")


def answer(data: Any, headers: Mapping[str, str]) -> Response:
    """A whole answer as JSON."""
    return Response(
        dumps(data).encode("utf-8", "replace"), media_type="application/json", headers=dict(headers)
    )
