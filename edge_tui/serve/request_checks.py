"""Checks host, origin, key, size and duration of a request before any route. Plain ASGI middleware.

A server on the loopback interface is not private: any web page in the user's browser may send to it. So a
request must address the server by one of its own names (so DNS rebinding fails), must not come from a page of
another origin, and, if the server has a key, must present it.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edge_tui.serve.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edge_tui.serve.options import Options

KEYLESS_PATHS = frozenset({"/health"})
"""Paths that need no key."""
BODY_SECONDS = 30.0
"""Longest time for a body to arrive."""
_SINGLE = frozenset({b"host", b"origin", b"authorization", b"content-length", b"content-type"})
"""Headers that must not be sent twice with different values: a proxy might read the other one."""
_PORTS = {"http": 80, "https": 443}


class RequestChecks:
    """Refuses requests before the application sees them.

    Args:
        app: The application.
        options: Key, hosts and the limit of bodies.
    """

    def __init__(self, app: ASGIApp, options: Options) -> None:
        self._app = app
        self._options = options
        self._key = options.key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            self._check(scope["path"], scope["headers"])
            if scope["method"] == "HEAD":  # answered as GET is; the server leaves the body out
                scope = {**scope, "method": "GET"}
            await self._app(scope, self._limit_body(receive), send_and_note)
        except ApiError as error:
            if started:  # the answer is on its way; what is left is to end it
                return
            response = error.response()
            if error.status_code in (408, 413):  # the rest of the body is not read
                response.headers["Connection"] = "close"
            await response(scope, receive, send)

    def _check(self, path: str, raw_headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Checks path and headers.

        Raises:
            ApiError: the request is refused.
        """
        headers: dict[bytes, bytes] = {}
        for name, value in raw_headers:
            if headers.setdefault(name, value) != value and name in _SINGLE:
                raise ApiError(400, f"The header {name.decode('latin-1')} is there twice; send it once.")
        host = headers.get(b"host", b"").decode("latin-1")
        hostname = _host_and_port(f"//{host}")[0]
        if not self._options.accepts_host(hostname):
            raise ApiError(
                403, f"This server is not called {hostname!r}; name it with --allow-host to let that in."
            )
        if (origin := headers.get(b"origin")) is not None:
            page = origin.decode("latin-1")
            scheme = page.partition(":")[0]
            # Another port of this machine is another origin.
            if not _host_and_port(page)[0] or _host_and_port(page) != _host_and_port(f"{scheme}://{host}"):
                raise ApiError(403, "Requests from web pages of other sites are refused.")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise ApiError(400, "The length of the body is not a number.")
        if len(length) > 18 or int(length) > self._options.body:
            raise self._too_large()
        if self._key and path not in KEYLESS_PATHS:
            method, _, key = headers.get(b"authorization", b"").partition(b" ")
            if method.lower() != b"bearer" or not hmac.compare_digest(key.strip(), self._key):
                raise ApiError(
                    401,
                    "A key is needed: send it as 'Authorization: Bearer KEY'.",
                    code="invalid_api_key",
                    headers={"WWW-Authenticate": "Bearer"},
                )

    def _limit_body(self, receive: Receive) -> Receive:
        """Wraps `receive` with a limit on bytes and time until the body is complete."""
        read = 0
        complete = False
        deadline = time.monotonic() + BODY_SECONDS

        async def receive_limited() -> Message:
            """Receives the next piece of the body; refuses one that is too late or too large."""
            nonlocal read, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, f"The body did not arrive within {BODY_SECONDS:.0f} s.") from None
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                complete = not message.get("more_body", False)
                if read > self._options.body:
                    raise self._too_large()
            return message

        return receive_limited

    def _too_large(self) -> ApiError:
        return ApiError(413, f"A body may have at most {self._options.body:,} bytes.")


def _host_and_port(origin: str) -> tuple[str, int | None]:
    """Returns host (lower case, without brackets; "" if there is none) and port of `scheme://host:port`.

    The port is the scheme's own if none is given.
    """
    try:
        parts = urlsplit(origin)
        return parts.hostname or "", parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return "", None
