"""Bounds a request's head before authentication, and answers clients that have closed their sending side.

uvicorn's protocol over httptools has no bound of its own on either size or time. It also takes the end of
what a client sends for the end of the connection. Here such a client gets its answer: whether it still
reads is found out by sending the first bytes of the response ahead of it, one by one.
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
"""Most bytes around the pieces of a body that comes in chunks."""
HEAD_SECONDS = 30.0
"""How long a head may take to arrive, the first from when the connection was made."""
PROBES = (0.0, 0.002, 0.01, 0.05, 0.25, 1.25, 5.0, 10.0, 20.0)
"""Seconds before each byte that is sent ahead. A peer that is gone answers the first with a reset, which the
next one meets after a round trip."""
_AHEAD = b"HTTP/1.1 "
"""How every response begins."""


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol with limits on size and time of heads, and half-closed connections."""

    transport: _Transport  # type: ignore[assignment]  # uvicorn's own, wrapped
    _spent = 0
    """Bytes of the present head, or around the pieces of the present body."""
    _in_body = False
    _half_closed = False
    _late: asyncio.TimerHandle | None = None
    _probe_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_Transport(transport))  # type: ignore[arg-type]  # it passes all else on
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feeds the parser no more than what a head may still have."""
        while data and not self.transport.is_closing():
            if not self._in_body:
                self._wait()
            size = HEAD_BYTES if self._in_body else HEAD_BYTES - self._spent
            piece, data = data[:size], data[size:]
            self._spent += len(piece)
            super().data_received(piece)
            if self._spent >= (FRAMING_BYTES if self._in_body else HEAD_BYTES):
                what = "framing of the body" if self._in_body else "head of a request"
                most = FRAMING_BYTES if self._in_body else HEAD_BYTES
                self._refuse(ApiError(431, f"The {what} may have at most {most:,} bytes.", code="too_long"))

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keeps the connection while a complete request waits for its answer."""
        self._half_closed = self._answering() and not self.cycle.more_body
        if self._half_closed:
            self._probe(0)
        return self._half_closed

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._spent, self._in_body = 0, True
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._spent -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._spent, self._in_body = 0, False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._half_closed and self.cycle.response_complete:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers what the parser does not understand."""
        self._refuse(ApiError(400, "That is no HTTP/1.1 request; send one.", code="invalid_http"))

    def _answering(self) -> bool:
        """Whether an answer is still to be sent, or a part of it."""
        first = self.cycle is None  # as it is until the first request, whatever uvicorn declares
        return not first and not self.cycle.response_complete

    def _refuse(self, error: ApiError) -> None:
        """Answers before there is a request, and hangs up."""
        if self.transport.is_closing():
            return
        if not self._answering():
            response = error.response()
            response.headers["Connection"] = "close"
            head = b"".join(b"%b: %b\r\n" % pair for pair in response.raw_headers)
            self.transport.write(STATUS_LINE[error.status_code] + head + b"\r\n" + bytes(response.body))
        self.transport.close()

    def _wait(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._answering():  # the next head has time; some clients send an empty line after a body
            self._wait()
            return
        if self._spent:
            seconds = f"{HEAD_SECONDS:g}"
            self._refuse(ApiError(408, f"The head of the request did not arrive within {seconds} s."))
        self.transport.close()

    def _probe(self, number: int) -> None:
        """Sends one byte of the answer ahead, and the next one later."""
        cycle = self.cycle
        if cycle.response_complete or self.transport.is_closing():
            return
        if not self.pipeline:  # else another request's answer comes first
            if not cycle.response_started:
                self.transport.send_ahead()
            elif cycle.chunked_encoding:
                self.transport.write(b"0")  # the size of the next chunk may begin so
        if number + 1 < len(PROBES):
            self._probe_timer = self.loop.call_later(PROBES[number + 1], self._probe, number + 1)


class _Transport:
    """Passes everything on to a transport, less what was sent ahead of a response."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def send_ahead(self) -> None:
        """Sends the next byte of what every response begins with."""
        self._transport.write(_AHEAD[self._sent : self._sent + 1])
        self._sent += 1

    def write(self, data: bytes) -> None:
        self._transport.write(data[self._sent :])
        self._sent = 0

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()
