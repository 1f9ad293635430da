"""Limits size and duration of HTTP headers before authentication, and answers half-closed connections.

uvicorn's protocol over httptools has no such limits (slow clients). It also closes the connection of a client
that has closed its sending side. Here such a client gets its answer; the first bytes of the response are sent
early, one by one, to detect one that no longer reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from edge_tui.serve.errors import ApiError

if TYPE_CHECKING:
    import asyncio

HEAD_BYTES = 64 * 1024
"""Most bytes of a request before its body: request line, headers and the empty line after them."""
FRAMING_BYTES = 2 * 2**20
"""Most bytes around the chunks of a chunked body."""
HEAD_SECONDS = 30.0
"""Longest time for a head to arrive, from the end of the request before it or from the connection."""
PROBE_DELAYS = (0.0, 0.002, 0.01, 0.05, 0.25, 1.25, 5.0, 10.0, 20.0)
"""Seconds before each byte that is sent early. A peer that is gone answers the first with a reset, which the
next one meets after a round trip."""
_STATUS_PREFIX = b"HTTP/1.1 "
"""First bytes of every response."""


class LimitedProtocol(HttpToolsProtocol):
    """Extends uvicorn's HTTP/1.1 protocol by limits on heads and by half-closed connections."""

    transport: _Transport  # type: ignore[assignment]  # uvicorn's own, wrapped
    _size = 0
    """Bytes of the current head, or around the chunks of the current body."""
    _in_body = False
    _half_closed = False
    _timer: asyncio.TimerHandle | None = None
    _probe_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wraps the transport, and starts the timer of the first head."""
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]  # it passes all else on
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops the timers."""
        self._stop_timer()
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser at most as many bytes as the head may still have."""
        while data and not self.transport.is_closing():
            if not self._in_body:
                self._start_timer()
            size = HEAD_BYTES if self._in_body else HEAD_BYTES - self._size
            piece, data = data[:size], data[size:]
            self._size += len(piece)
            super().data_received(piece)
            what, most = (
                ("framing of the body", FRAMING_BYTES) if self._in_body else ("head of a request", HEAD_BYTES)
            )
            if self._size >= most:
                self._refuse(ApiError(431, f"The {what} may have at most {most:,} bytes.", code="too_long"))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection while a complete request waits for its response."""
        self._half_closed = self._response_pending() and not self.cycle.more_body
        if self._half_closed:
            self._probe(0)
        return self._half_closed

    def on_headers_complete(self) -> None:
        """Stops the head's timer, and counts the body's bytes from here."""
        self._stop_timer()
        self._size, self._in_body = 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Takes the body's bytes off those that count as a head."""
        self._size -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Counts the next head's bytes from here."""
        self._size, self._in_body = 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Closes a connection whose client has closed its half."""
        super().on_response_complete()
        if self._half_closed and self.cycle.response_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Refuses bytes that are no HTTP."""
        self._refuse(ApiError(400, "The bytes are no HTTP/1.1 request; send one.", code="invalid_http"))

    def _response_pending(self) -> bool:
        """Tells whether a response, or a part of it, is still to be sent."""
        first = self.cycle is None  # as it is until the first request, whatever uvicorn declares
        return not first and not self.cycle.response_complete

    def _refuse(self, error: ApiError) -> None:
        """Sends an error before there is a request, and closes the connection."""
        if self.transport.is_closing():
            return
        if not self._response_pending():
            response = error.response()
            response.headers["Connection"] = "close"
            head = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers)
            self.transport.write(STATUS_LINE[error.status_code] + head + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _start_timer(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self._on_timeout)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timeout(self) -> None:
        self._timer = None
        if self._response_pending():  # the next head has time; some clients send an empty line after a body
            self._start_timer()
            return
        if self._size:
            self._refuse(ApiError(408, f"The head of the request did not arrive within {HEAD_SECONDS:g} s."))
        self.transport.close()

    def _probe(self, number: int) -> None:
        """Sends one byte of the response early, and schedules the next."""
        cycle = self.cycle
        if cycle.response_complete or self.transport.is_closing():
            return
        if not self.pipeline:  # else another request's answer comes first
            if not cycle.response_started:
                self.transport.send_early()
            elif cycle.chunked_encoding:
                self.transport.write(b"0")  # the size of the next chunk may begin so
        if number + 1 < len(PROBE_DELAYS):
            self._probe_timer = self.loop.call_later(PROBE_DELAYS[number + 1], self._probe, number + 1)


class _Transport:
    """Wraps a transport; leaves those bytes out of a response that were sent early."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._early = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send_early(self) -> None:
        """Sends the next byte of `_STATUS_PREFIX`."""
        self._transport.write(_STATUS_PREFIX[self._early : self._early + 1])
        self._early += 1

    def write(self, data: bytes) -> None:
        self._transport.write(data[self._early :])
        self._early = 0
