"""Requests as bytes on a socket: heads, half-closed connections, HEAD."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from edge_tui.serve.header_limits import HEAD_BYTES
from tests.serve.serving import Running, serving
from tests.waiting import until

PROMPT = "def main("


def _connect(server: Running) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def _request(path: str, body: Any = None, method: str = "POST", headers: str = "") -> bytes:
    raw = b"" if body is None else json.dumps(body).encode()
    kind = f"Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n" if raw else ""
    return f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}{headers}\r\n".encode() + raw


def _all(wire: socket.socket) -> bytes:
    """Everything until the server hangs up."""
    pieces = []
    while piece := wire.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def _answer(wire: socket.socket) -> tuple[int, Any]:
    """One answer with a length."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += wire.recv(65536)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += wire.recv(65536)
    return int(head.split()[1]), json.loads(body[:length])


@pytest.mark.parametrize(
    ("path", "more", "end"),
    [
        ("/infer", {"max_length": 10}, b"}"),
        ("/infer/stream", {"max_length": 10, "format": "columns"}, b"0\r\n\r\n"),
        ("/v1/completions", {"max_tokens": 10, "stream": True}, b"[DONE]\n\n\r\n0\r\n\r\n"),
    ],
)
def test_who_has_closed_the_sending_side_is_answered(
    server: Running, slow: str, path: str, more: dict[str, Any], end: bytes
) -> None:
    """It takes 0.3 s, so the first bytes of the answer come ahead of it."""
    with _connect(server) as wire:
        wire.sendall(_request(path, {"prompt": PROMPT, "strategy": slow, **more}))
        wire.shutdown(socket.SHUT_WR)
        said = _all(wire)
    assert said.startswith(b"HTTP/1.1 200 OK\r\n"), said[:200]
    assert said.endswith(end)
    assert said.count(b"HTTP/1.1 ") == 1
    if b"chunked" in said:
        assert b"end" in _unchunked(said) or b"[DONE]" in _unchunked(said)


def _unchunked(said: bytes) -> bytes:
    body, text = said.partition(b"\r\n\r\n")[2], b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text, body = text + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return text


def test_so_is_who_waits_in_the_queue_or_sends_several_requests(server: Running, slow: str) -> None:
    body = {"prompt": PROMPT, "strategy": slow, "max_length": 4}
    with _connect(server) as first, _connect(server) as second, _connect(server) as third:
        for wire in (first, second):
            wire.sendall(_request("/infer", body))
            wire.shutdown(socket.SHUT_WR)
        third.sendall(_request("/health", method="GET") + _request("/infer", body))
        third.shutdown(socket.SHUT_WR)
        assert all(_all(wire).startswith(b"HTTP/1.1 200 OK\r\n") for wire in (first, second))
        assert _all(third).count(b"HTTP/1.1 200 OK\r\n") == 2


def test_who_closes_both_sides_is_forgotten(slow: str) -> None:
    body = {"prompt": PROMPT, "strategy": slow, "max_length": 1000}
    with serving() as server:
        running, waiting = (_connect(server) for _ in range(2))
        for wire, has_come in (
            (running, lambda: server.app.dispatcher.running),
            (waiting, lambda: server.app.dispatcher.waiting == 1),
        ):
            wire.sendall(_request("/infer", body))
            wire.shutdown(socket.SHUT_WR)
            until(has_come)
        waiting.close()
        until(lambda: server.app.dispatcher.waiting == 0)  # else its turn may come before it is missed
        running.close()
        server.settle(10)
        assert len(server.engine.requests) == 1, "the one that waited never started"


def test_an_empty_line_after_a_body_cuts_no_answer(
    server: Running, slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"prompt": PROMPT, "strategy": slow, "max_length": 10}
    with _connect(server) as wire:
        wire.sendall(_request("/infer", body))
        until(lambda: server.app.dispatcher.running)
        monkeypatch.setattr("edge_tui.serve.header_limits.HEAD_SECONDS", 0.05)
        wire.sendall(b"\r\n")
        assert _answer(wire)[0] == 200


@pytest.mark.parametrize(
    "sent", [b"", b"POST /infer HTTP/1.1\r\nHost: lo", _request("/infer", {"a": 1})[:-1]]
)
def test_half_a_request_is_hung_up_on(server: Running, sent: bytes) -> None:
    with _connect(server) as wire:
        wire.sendall(sent)
        wire.shutdown(socket.SHUT_WR)
        assert _all(wire) == b""


def _head(size: int, kind: str) -> bytes:
    """A request's head of so many bytes."""
    start, end = b"GET /health HTTP/1.1\r\nHost: localhost\r\n", b"\r\n"
    room = size - len(start) - len(end)
    if kind == "one line":
        return start + b"x-long: " + b"x" * (room - 10) + b"\r\n" + end
    if kind == "path":
        return start.replace(b"/health", b"/health?" + b"x" * (room - 1)) + end
    line = b"a: b\r\n"
    lines, rest = divmod(room - 40, len(line))
    return start + line * lines + b"x-rest: " + b"x" * (40 + rest - 10) + b"\r\n" + end


@pytest.mark.parametrize("kind", ["one line", "many lines", "path"])
@pytest.mark.parametrize("pieces", [1, 3])
def test_a_head_has_64_kibibytes_and_not_one_more(server: Running, kind: str, pieces: int) -> None:
    with _connect(server) as wire:
        for size, status in ((HEAD_BYTES, 200), (HEAD_BYTES, 200), (HEAD_BYTES + 1, 431)):
            head = _head(size, kind)
            assert len(head) == size
            step = -(-size // pieces)
            for start in range(0, size, step):
                wire.sendall(head[start : start + step])
            found, said = _answer(wire)
            assert found == status, (size, said)
        assert "65,536 bytes" in said["error"]["message"]
        assert wire.recv(10) == b"", "it has hung up"


def test_a_body_may_come_in_tiny_pieces_but_not_in_framing_alone(server: Running) -> None:
    body = json.dumps({"prompt": PROMPT + " " * 20_000, "max_length": 1}).encode()
    head = b"POST /infer HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += b"Transfer-Encoding: chunked\r\n\r\n"
    with _connect(server) as wire:
        tiny = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
        wire.sendall(head + tiny + b"0\r\n\r\n")
        assert _answer(wire)[0] in (200, 400)
        assert wire.send(head)
        framing = (b"1;" + b"x" * 65536 + b"\r\n{\r\n") * 1000  # more than any socket's buffers hold
        with pytest.raises(OSError, match=r"reset|pipe"):
            wire.sendall(framing)


@pytest.mark.parametrize("raw", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"HELLO\r\n\r\n", b"GET\r\n\r\n"])
def test_what_is_no_http_is_told_so(server: Running, raw: bytes) -> None:
    with _connect(server) as wire:
        wire.sendall(raw)
        status, said = _answer(wire)
    assert (status, said["error"]["code"]) == (400, "invalid_http")


@pytest.mark.parametrize(
    "path", ["/health", "/v1/models", "/v1/models/demo/expert", "/about", "/openapi.json"]
)
def test_head_is_get_without_the_body(server: Running, path: str) -> None:
    with server.client() as client:
        got, head = client.get(path), client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]
    with _connect(server) as wire:
        wire.sendall(_request("/health", method="HEAD", headers="Connection: close\r\n"))
        head_, _, body = _all(wire).partition(b"\r\n\r\n")
    assert head_.startswith(b"HTTP/1.1 200 OK")
    assert body == b""


def test_a_header_that_is_there_twice_is_refused(server: Running) -> None:
    with _connect(server) as wire:
        wire.sendall(_request("/health", method="GET", headers="Host: evil.example\r\n"))
        status, said = _answer(wire)
    assert status == 400
    assert "host" in said["error"]["message"]


def test_no_other_protocol_is_spoken(server: Running) -> None:
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: YQ==\r\n"
    with _connect(server) as wire:
        wire.sendall(_request("/health", method="GET", headers=upgrade))
        assert _answer(wire)[0] == 200, "as if nothing else had been asked for"


@pytest.mark.parametrize("path", ["/infer", "/models/load", "/v1/chat/completions"])
def test_a_body_that_breaks_off_leaves_no_crash_log(
    server: Running, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    raw = _request(path, {"prompt": PROMPT})
    with _connect(server) as wire:
        wire.sendall(raw[:-5])
    with _connect(server) as wire:
        wire.sendall(_request(path, "[" * 100_000))
        assert _answer(wire)[0] == 422
    deep = b"[" * 100_000
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    with _connect(server) as wire:
        wire.sendall(f"{head}Content-Length: {len(deep)}\r\n\r\n".encode() + deep)
        assert _answer(wire)[0] in (400, 422)
    assert not list(tmp_path.rglob("*.log"))
