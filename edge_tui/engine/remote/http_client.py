"""Sends requests to one server and reads JSON and server-sent events; each failure is one sentence."""

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
"""Longest silence of a server: it may have a queue, or a model to load."""
LINE_BYTES = 16 * 2**20
"""Longest line that a server may send."""


class RemoteError(EdgeError):
    """Reports a request that a server refused or did not answer.

    Attributes:
        status: HTTP status; 0 if there was none.
        field: The field of the request that the server found at fault; "" if it named none.
        malformed: True if the response is not of the protocol.
    """

    code = "connection"

    def __init__(
        self, message: str, status: int = 0, field: str = "", malformed: bool = False, code: str = ""
    ) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.status = status
        self.field = field
        self.malformed = malformed


def base_url(url: str) -> str:
    """Returns the base URL of the address that a user typed; `/v1` at its end is dropped.

    Raises:
        ValueError: it is no http or https address, or holds a password; one sentence.
    """
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{url!r} is no address of a server; write one like http://127.0.0.1:8000.")
    if parts.username or parts.password:
        raise ValueError("The address holds a user or password; put a key into EDGE_TUI_API_KEY instead.")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


class HttpClient:
    """Sends requests to one server. Redirects are not followed: a key goes to the named server alone.

    Args:
        base: As `base_url` returns it.
        key: Sent as a bearer token; "" sends none.
    """

    def __init__(self, base: str, key: str = "") -> None:
        self.base = base
        self.host = urlsplit(base).netloc
        self._key = key
        self._client: AsyncClient | None = None

    @property
    def client(self) -> AsyncClient:
        """The library's client; made by the first request."""
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
                # Reading the certificates of all authorities takes 30 ms; without TLS nothing asks for them.
                verify=not self.base.startswith("http:"),
                follow_redirects=False,
                # Some servers hang up after an error without saying so: each request gets a connection.
                limits=httpx.Limits(max_keepalive_connections=0),
            )
        return self._client

    async def close(self) -> None:
        """Closes the connections; another request opens new ones."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def get(self, path: str) -> Any:
        """Returns the JSON of a GET request.

        Raises:
            RemoteError: there is none.
        """
        return await self._request("GET", path, None, CONNECT_SECONDS)

    async def post(self, path: str, body: dict[str, Any], seconds: float = ANSWER_SECONDS) -> Any:
        """Returns the JSON of a POST request.

        Raises:
            RemoteError: there is none.
        """
        return await self._request("POST", path, body, seconds)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[tuple[str, Any]]:
        """Yields server-sent events as (name, JSON) up to `[DONE]` or the end. Close it after use.

        Raises:
            RemoteError: the server refused, broke off, or sent something else.
        """
        async with self._send("POST", path, body, ANSWER_SECONDS) as response:
            name = ""
            async for line in _lines(response):
                if line.startswith("event:"):
                    name = line.removeprefix("event:").strip()
                elif line.startswith("data:"):
                    data = line.removeprefix("data:").strip()
                    if data == "[DONE]":
                        return
                    yield name, self._parse(data)
                elif not line:
                    name = ""

    @asynccontextmanager
    async def _send(
        self, method: str, path: str, body: dict[str, Any] | None, seconds: float
    ) -> AsyncIterator[Response]:
        """Sends a request and yields its response; words a refusal or a timeout as `RemoteError`."""
        import httpx2 as httpx

        timeout = httpx.Timeout(seconds, connect=CONNECT_SECONDS)
        try:
            async with self.client.stream(method, path, json=body, timeout=timeout) as response:
                if response.status_code != 200:
                    raise await self._refusal(response)
                yield response
        except httpx.TimeoutException as error:
            raise RemoteError(f"{self.host} does not answer; is the server running?") from error
        except httpx.ConnectError as error:
            raise RemoteError(f"{self.host} cannot be reached; is the server running?") from error
        except httpx.HTTPError as error:
            raise RemoteError(f"The connection to {self.host} broke; what came so far is kept.") from error

    async def _request(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> Any:
        async with self._send(method, path, body, seconds) as response:
            return self._parse((await _read_body(response)).decode("utf-8", "replace"))

    def _parse(self, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise RemoteError(
                f"{self.host} sent something that is not JSON; is it such a server?", malformed=True
            ) from error

    async def _refusal(self, response: Response) -> RemoteError:
        status = response.status_code
        if status == 401:
            return RemoteError(f"{self.host} needs another key: put it into EDGE_TUI_API_KEY.", status)
        if status == 429:
            seconds = response.headers.get("Retry-After", "")
            wait = f" in {seconds} s" if seconds.isdigit() else " later"
            return RemoteError(f"{self.host} is busy, its queue is full: try again{wait}.", status)
        try:
            message, field, code = read_error(json.loads(await _read_body(response)))
        except (ValueError, RecursionError):
            message = field = code = ""
        return RemoteError(message or f"{self.host} refused with status {status}.", status, field, code=code)


def read_error(body: Any) -> tuple[str, str, str]:
    """Returns an error's message, field and code, in the shapes that servers use; "" for what is missing."""
    if not isinstance(body, dict):
        return "", "", ""
    error = body.get("error", body.get("detail", body.get("message")))
    if isinstance(error, dict):
        message, field, code = (str(error.get(name) or "") for name in ("message", "param", "code"))
        return message[:500], field, code
    return (error[:500], "", "") if isinstance(error, str) else ("", "", "")


async def _read_body(response: Response) -> bytes:
    """Reads a body of at most `LINE_BYTES`."""
    raw = bytearray()
    async for part in response.aiter_bytes():
        raw += part
        if len(raw) > LINE_BYTES:
            raise RemoteError("The server's answer is too long.")
    return bytes(raw)


async def _lines(response: Response) -> AsyncIterator[str]:
    """Yields the lines of a body as they come, each of at most `LINE_BYTES`."""
    rest = bytearray()
    async for part in response.aiter_bytes():
        rest += part
        *whole, last = rest.split(b"\n")
        for line in whole:
            yield line.decode("utf-8", "replace").removesuffix("\r")
        rest = bytearray(last)
        if len(rest) > LINE_BYTES:
            raise RemoteError("The server sent a line that is too long.")
    if rest:
        yield rest.decode("utf-8", "replace")
