"""HTTP as the remote engine uses it: one server, JSON, server-sent events, one sentence for what fails."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edge_tui.errors import EdgeError

if TYPE_CHECKING:
    from httpx2 import AsyncClient, Response

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 600.0
"""Longest silence of a server that decodes: it may have a queue, or a model to load."""
LINE_BYTES = 16 * 2**20
"""Longest line that a server may send."""


class WireError(EdgeError):
    """A server that gave no answer; one sentence.

    Attributes:
        status: HTTP status; 0 if there was none.
        field: The field of the request that the server found at fault, if it said so.
        garbled: Whether something came that is no answer at all.
    """

    code = "connection"

    def __init__(self, message: str, status: int = 0, field: str = "", garbled: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.field = field
        self.garbled = garbled


def base_of(url: str) -> str:
    """The address of a server without path, from what a user types: `/v1` at its end is fine.

    Raises:
        ValueError: it is no http or https address, or holds a password; the message is a sentence.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ValueError(f"{url!r} is no address of a server; write one like http://127.0.0.1:8000.")
    if parts.username or parts.password:
        raise ValueError("The address holds a user or password; put a key into EDGE_TUI_API_KEY instead.")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


class Wire:
    """A connection to one server. Redirects are not followed: a key goes to the named server alone.

    Args:
        base: As `base_of` gives it.
        key: Sent as a bearer token; "" sends none.
    """

    def __init__(self, base: str, key: str = "") -> None:
        self.base = base
        self.host = urlsplit(base).netloc
        self._key = key
        self._client: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        if self._client is None:
            import httpx2 as httpx

            from edge_tui import __version__

            headers = {"User-Agent": f"edge-tui/{__version__}"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            self._client = httpx.AsyncClient(
                base_url=self.base,
                headers=headers,
                timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
                follow_redirects=False,
                # Some servers hang up after an error without saying so: each request gets a connection.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._client

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, path: str, seconds: float = CONNECT_SECONDS) -> Any:
        """A JSON answer.

        Raises:
            WireError: there is none.
        """
        async with self._answer("GET", path, None, seconds) as response:
            return await self._json(response)

    async def post(self, path: str, body: dict[str, Any], seconds: float = ANSWER_SECONDS) -> Any:
        """A JSON answer.

        Raises:
            WireError: there is none.
        """
        async with self._answer("POST", path, body, seconds) as response:
            return await self._json(response)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[tuple[str, Any]]:
        """Server-sent events as (event, JSON); ends at `[DONE]` or with the connection. Close it after use.

        Raises:
            WireError: the server refused, broke off, or sent what is no event.
        """
        async with self._answer("POST", path, body, ANSWER_SECONDS) as response:
            kind = ""
            async for line in _lines(response):
                if line.startswith("event:"):
                    kind = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    yield kind, self._parse(data)
                elif not line:
                    kind = ""

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> AsyncIterator[Response]:
        import httpx2 as httpx

        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        try:
            async with self.client.stream(method, path, json=body, timeout=timeout) as response:
                if response.status_code != 200:
                    raise await self._refusal(response)
                yield response
        except httpx.TimeoutException as error:
            raise WireError(f"{self.host} does not answer; is the server running?") from error
        except httpx.ConnectError as error:
            raise WireError(f"{self.host} cannot be reached; is the server running?") from error
        except httpx.HTTPError as error:
            raise WireError(f"The connection to {self.host} broke; what came so far is kept.") from error

    async def _json(self, response: Response) -> Any:
        return self._parse((await _bounded(response)).decode("utf-8", "replace"))

    def _parse(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise WireError(
                f"{self.host} sent something that is not JSON; is it such a server?", garbled=True
            ) from error

    async def _refusal(self, response: Response) -> WireError:
        status = response.status_code
        if status == 401:
            return WireError(
                f"{self.host} lets nobody in without the right key: put it into EDGE_TUI_API_KEY.", status
            )
        if status == 429:
            later = response.headers.get("Retry-After", "")
            wait = f" in {later} s" if later.isdigit() else " later"
            return WireError(f"{self.host} is busy, its queue is full: try again{wait}.", status)
        message, field = _reason(await _bounded(response))
        return WireError(message or f"{self.host} refused with status {status}.", status, field)


def _reason(raw: bytes) -> tuple[str, str]:
    """What a server says is wrong, and with which field, in the shapes that servers use."""
    try:
        said = json.loads(raw)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(said, dict):
        return "", ""
    error = said.get("error", said.get("detail", said.get("message")))
    if isinstance(error, dict):
        return str(error.get("message") or "")[:500], str(error.get("param") or "")
    return (error[:500], "") if isinstance(error, str) else ("", "")


async def _bounded(response: Response) -> bytes:
    """A body, as far as one may be long."""
    raw = bytearray()
    async for part in response.aiter_bytes():
        raw += part
        if len(raw) > LINE_BYTES:
            raise WireError("The server's answer is too long.")
    return bytes(raw)


async def _lines(response: Response) -> AsyncIterator[str]:
    """Lines of a body as they come, none longer than may be."""
    rest = bytearray()
    async for part in response.aiter_bytes():
        rest += part
        *whole, last = rest.split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").removesuffix("\r")
        rest = bytearray(last)
        if len(rest) > LINE_BYTES:
            raise WireError("The server sent a line that is too long.")
    if rest:
        yield rest.decode("utf-8", "replace")
