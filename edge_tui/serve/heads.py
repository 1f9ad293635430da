"""Bounds on a request's head, which costs memory and patience before anybody has looked at a key.

h11, which uvicorn takes where httptools is missing, has a bound of its own; httptools has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import asyncio

HEAD_BYTES = 64 * 1024
"""Most bytes of a request that are not its body; what is read from the socket at once may be more."""
HEAD_SECONDS = 30.0
"""How long a head may take to arrive, the first from when the connection was made."""


def protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    """What uvicorn shall speak HTTP with."""
    try:
        from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
    except ImportError:
        return "h11"

    class Bounded(HttpToolsProtocol):
        """Hangs up on whoever sends a longer head, one too slowly, or as much around the pieces of a body."""

        _spent = 0
        """Bytes of the present request that are not its body."""
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self._spent += len(data)
            super().data_received(data)
            if self._spent > HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of this request is too long.")

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._wait()

        def on_headers_complete(self) -> None:
            self._stop_waiting()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._spent -= len(body)
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._spent = 0
            super().on_message_complete()

        def _wait(self) -> None:
            if self._late is None:
                self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)

        def _stop_waiting(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Bounded
