"""Writes JSON and server-sent events, and cancels the work for a client that disconnects."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from fastapi.responses import Response, StreamingResponse

from edge_tui.serve.errors import ApiError
from edge_tui.util.json_text import finite

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.types import Message, Receive, Scope, Send

    from edge_tui.serve.dispatcher import QueueSlot

T = TypeVar("T")
READ_SECONDS = 60.0
"""Longest time that a client may leave a part of its response unread."""


def client_id(request: Request) -> str:
    """Returns the client's address, which names it in the queue."""
    return request.client.host if request.client is not None else ""


async def wait_until(done: Callable[[], bool], seconds: float) -> None:
    """Polls until a condition holds.

    Raises:
        TimeoutError: it takes longer than that.
    """
    async with asyncio.timeout(seconds):
        while not done():
            await asyncio.sleep(0.02)


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Awaits work for a client, and cancels it if the client disconnects.

    Raises:
        ApiError: 499, which nobody reads.
    """
    working = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait({working, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ApiError(499, "The client has disconnected.")
        return working.result()
    finally:
        for task in (working, disconnect):
            task.cancel()
        await asyncio.gather(working, disconnect, return_exceptions=True)


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def format_event(data: Any, name: str = "") -> str:
    """Formats one server-sent event with a JSON object."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {dumps(data)}\n\n"


def dumps(data: Any) -> str:
    """Writes JSON on one line. Infinity and NaN, which JSON lacks, become null."""
    try:
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class EventStream(StreamingResponse):
    """Sends the server-sent events of one request and then closes its slot.

    Args:
        chunks: The events, as `format_event` writes them.
        slot: Closed when the response ends, however it does.
    """

    def __init__(self, chunks: AsyncIterator[str], slot: QueueSlot) -> None:
        # A proxy must neither keep nor collect them.
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **slot.headers}
        super().__init__(_encode(chunks), media_type="text/event-stream", headers=headers)
        self._slot = slot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(READ_SECONDS):
                await send(message)

        try:
            with suppress(TimeoutError):  # the server closes the connection
                await super().__call__(scope, receive, send_in_time)
        finally:
            self._slot.close()


async def _encode(chunks: AsyncIterator[str]) -> AsyncIterator[bytes]:
    """Encodes text, which may hold lone surrogates from a strange tokenizer."""
    async for chunk in chunks:
        yield chunk.encode("utf-8", "replace")


def json_response(data: Any, slot: QueueSlot) -> Response:
    """Returns a whole answer as JSON."""
    body = dumps(data).encode("utf-8", "replace")
    return Response(body, media_type="application/json", headers=slot.headers)
