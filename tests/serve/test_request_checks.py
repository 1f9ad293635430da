"""What keeps strangers, web pages and huge bodies out."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.routing import BaseRoute, Route

from edge_tui.serve.options import OptionError, Options, is_loopback, read_key
from edge_tui.serve.schemas import Infer
from tests.serve.serving import Running, serving

KEY = "correct-horse"


@pytest.fixture(scope="module")
def locked() -> Iterator[Running]:
    with serving(key=KEY, body=4096, hosts=("decoder.example",)) as running:
        yield running


def _routes(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Every method and path that is served, whatever holds it."""
    for route in routes:
        if isinstance(route, APIRoute | Route):
            for method in route.methods or ():
                yield method, route.path
        inner = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", []
        )
        yield from _routes(inner)


def test_every_route_but_health_needs_the_key(locked: Running) -> None:
    found = dict.fromkeys(_routes(locked.app.routes))
    with locked.client() as client:
        document = client.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        found |= dict.fromkeys((method.upper(), path) for method in methods)
    assert len(found) >= 12, found
    tried = 0
    with locked.client() as client:
        for method, path in [
            *found,
            ("GET", "/nowhere"),
            ("POST", "/health/../infer"),
            ("OPTIONS", "/infer"),
        ]:
            if path == "/health":
                continue
            for key in (
                None,
                "Bearer",
                "Bearer wrong",
                f"Basic {KEY}",
                f"Bearer {KEY}x",
                f"Bearer {KEY[:-1]}",
            ):
                client.headers.pop("Authorization", None)
                if key is not None:
                    client.headers["Authorization"] = key
                answer = client.request(method, path.replace("{name:path}", "x"))
                assert answer.status_code == 401, (method, path, key)
                if method != "HEAD":
                    assert answer.json()["error"]["code"] == "invalid_api_key"
                tried += 1
    assert tried >= 60
    assert not locked.engine.requests


def test_the_key_opens(locked: Running) -> None:
    with locked.client() as client:
        assert client.get("/health", headers={"Authorization": ""}).status_code == 200
        assert client.get("/v1/models").status_code == 200
    assert locked.post("/infer", {"prompt": "a", "max_length": 1}).status_code == 200


def test_keys_are_compared_in_constant_time() -> None:
    import inspect

    from edge_tui.serve import request_checks

    assert "hmac.compare_digest" in inspect.getsource(request_checks.RequestChecks)
    assert "== self._key" not in inspect.getsource(request_checks.RequestChecks)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:1234", 200),
        ("10.1.2.3", 200),
        ("decoder.example:443", 200),
        ("DECODER.example", 200),
        ("attacker.example", 403),
        ("localhost.attacker.example", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_only_names_that_are_its_own_reach_it(locked: Running, host: str, status: int) -> None:
    with locked.client() as client:
        answer = client.get("/health", headers={"Host": host})
    assert answer.status_code in ({status} if host else {400, 403})


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("http://127.0.0.1:PORT", 200),
        ("HTTP://127.0.0.1:PORT", 200),
        ("http://127.0.0.1", 403),
        ("http://127.0.0.1:9", 403),
        ("http://localhost:PORT", 403),
        ("http://127.0.0.1:PORT.evil.example", 403),
        ("http://[", 403),
    ],
)
def test_web_pages_of_others_are_refused(locked: Running, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"Origin": origin.replace("PORT", locked.url.rsplit(":")[-1])}
    with locked.client() as client:
        answer = client.post("/infer", json={"prompt": "a", "max_length": 1}, headers=headers)
        preflight = client.options(
            "/infer", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        )
    assert answer.status_code == status
    assert preflight.status_code == 403
    for each in (answer, preflight):
        assert not [name for name in each.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("decoder.example", "https://decoder.example", 200),
        ("decoder.example:443", "https://decoder.example", 200),
        ("decoder.example", "https://decoder.example:8443", 403),
        ("decoder.example:8000", "http://decoder.example:8000", 200),
        ("decoder.example:8000", "http://decoder.example", 403),
        ("decoder.example", "http://decoder.example:80", 200),
        ("[::1]:8000", "http://[::1]:8000", 200),
        ("[::1]:8000", "http://[::1]:8001", 403),
    ],
)
def test_an_origin_is_its_own_with_its_port(locked: Running, host: str, origin: str, status: int) -> None:
    with locked.client() as client:
        assert client.get("/health", headers={"Host": host, "Origin": origin}).status_code == status


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        *(("/infer", kind) for kind in ("application/x-www-form-urlencoded", "", "application/xjson")),
        *(
            (path, "text/plain")
            for path in ("/infer", "/infer/stream", "/v1/completions", "/v1/chat/completions")
        ),
    ],
)
def test_a_body_without_the_header_of_json_is_told_which_it_needs(
    locked: Running, path: str, kind: str
) -> None:
    raw = b'{"prompt": "a", "max_length": 1}'
    with locked.client() as client:
        answer = client.post(path, content=raw, headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/a+json"]
)
def test_other_spellings_of_the_header_are_json(locked: Running, kind: str) -> None:
    raw = b'{"prompt": "a", "max_length": 1}'
    with locked.client() as client:
        assert client.post("/infer", content=raw, headers={"Content-Type": kind}).status_code == 200


def test_of_many_mistakes_one_is_collected() -> None:
    """Each of half a million of them told would keep the loop for many seconds."""
    with pytest.raises(ValidationError) as refused:
        Infer.model_validate({"prompt": [-1] * 5000})
    assert refused.value.error_count() <= 3, "one for each kind of prompt"


def test_bodies_are_bounded_announced_or_not(locked: Running) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * 1024

    with locked.client() as client:
        for content in (b" " * 5000, pieces()):
            answer = client.post("/infer", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code == 413
            assert "4,096 bytes" in answer.json()["error"]["message"]
    assert locked.post("/infer", {"prompt": "a", "max_length": 1}).status_code == 200


def test_a_body_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, locked: Running) -> None:
    from edge_tui.serve import request_checks

    monkeypatch.setattr(request_checks, "BODY_SECONDS", 0.2)
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST /infer HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in connection.recv(100)


def test_models_stay_as_they_are_unless_it_was_allowed(locked: Running) -> None:
    for path, body in (("/models/load", {"role": "model", "name": "demo/amateur"}), ("/models/unload", {})):
        answer = locked.post(path, body)
        assert answer.status_code == 403
        assert "--allow-model-management" in answer.json()["error"]["message"]
    with locked.client() as client:
        assert client.get("/models").status_code == 403
    assert locked.app.dispatcher.ready


def test_models_are_managed_where_it_was_allowed(tmp_path: object) -> None:
    with serving(manage=True) as server:
        with server.client() as client:
            listed = client.get("/models").json()
            assert {"demo/expert", "demo/amateur"} <= {each["name"] for each in listed["available"]}
            for name in ("/etc", str(tmp_path), "../demo/expert", "nobody/nothing"):
                assert client.post("/models/load", json={"name": name}).status_code == 404
            assert client.post("/models/unload", json={"role": "model"}).json()["loaded"] is None
            assert client.get("/health").status_code == 503
            assert client.get("/health").json()["status"] == "unloaded"
            loaded = client.post("/models/load", json={"name": "demo/amateur"}).json()["loaded"]
            assert loaded["name"] == "demo/amateur"
            assert client.get("/v1/models").json()["data"][0]["id"] == "demo/amateur"
            assert client.get("/health").json()["model"] == "demo/amateur"
            body = {"role": "expert", "name": "demo/amateur"}
            shared = client.post("/models/load", json=body).json()
            expected = {"role": "expert", "loaded": {**loaded, "role": "expert"}, "roles": ["expert"]}
            assert shared == expected, "the same weights play two roles"
            again = client.post("/models/load", json={"name": "demo/amateur", "precision": "bfloat16"})
            assert again.json()["loaded"]["precision"] == "bfloat16"
            broken = client.post("/models/load", json={"name": "demo/expert", "precision": "4bit"})
            if broken.status_code != 200:  # where the device cannot do that
                assert "4bit" in broken.json()["error"]["message"]
        assert server.post("/infer", {"prompt": "a", "max_length": 2}).status_code == 200


def test_health_is_503_before_the_model_is_there() -> None:
    with serving(ready=False) as server, server.client() as client:
        early = client.get("/health")
        if early.status_code != 200:  # the model may be quicker
            assert early.json()["status"] in ("loading", "unloaded")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_others_can_reach_it_only_with_a_key(host: str) -> None:
    with pytest.raises(OptionError, match="EDGE_TUI_API_KEY"):
        Options(host=host)
    assert Options(host=host, key="k").accepts_host("10.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_loopback_needs_no_key(host: str) -> None:
    assert is_loopback(host)
    Options(host=host)


@pytest.mark.parametrize("bad", [{"queue": -1}, {"tokens": 0}, {"port": 70000}, {"seconds": float("nan")}])
def test_limits_have_limits(bad: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="must be"):
        Options(**bad)  # type: ignore[arg-type]


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    assert read_key(None) == ""
    monkeypatch.setenv("EDGE_TUI_API_KEY", "from-env")
    file.write_text("from-file\n")
    assert read_key(str(file)) == "from-file"
    assert read_key(None) == "from-env"
    file.write_text("\n")
    with pytest.raises(OptionError, match="empty"):
        read_key(str(file))
    with pytest.raises(OptionError, match="cannot be read"):
        read_key(f"{file}x")
    monkeypatch.setenv("EDGE_TUI_API_KEY", "two words")
    with pytest.raises(OptionError, match="one word"):
        read_key(None)


def test_nothing_a_client_sends_is_logged(locked: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        locked.post("/infer", {"prompt": "canary-prompt", "max_length": 1})
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("http", "hpack"))]
    assert not [line for line in ours if "canary-prompt" in line or KEY in line]


@pytest.mark.parametrize("said", [b"", b"GET /health HTTP/1.1\r\nHost: local"])
def test_a_head_that_does_not_come_is_not_waited_for(
    locked: Running, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr("edge_tui.serve.header_limits.HEAD_SECONDS", 0.3)
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        wire.sendall(said)
        late = b"".join(iter(lambda: wire.recv(1000), b""))  # until it has hung up
        assert late[:12] == (b"HTTP/1.1 408" if said else b"")


def test_a_connection_may_rest_between_requests(locked: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        for _ in range(2):
            wire.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            said = b""
            while not said.endswith(b"}"):  # head and body may come apart
                piece = wire.recv(1000)
                assert piece, "it has hung up"
                said += piece
            assert said.startswith(b"HTTP/1.1 200")
            monkeypatch.setattr("edge_tui.serve.header_limits.HEAD_SECONDS", 0.05)
            time.sleep(0.15)


@pytest.mark.parametrize("head", ["lines", "one line"])
def test_a_head_without_end_is_hung_up_on(locked: Running, head: str) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    piece = b"x-more: " + b"x" * 1000 + (b"\r\n" if head == "lines" else b"")
    with socket.create_connection((host, int(port)), timeout=60) as wire:
        wire.sendall(b"POST /infer HTTP/1.1\r\nHost: localhost\r\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 50e6:
                wire.sendall(piece)
                sent += len(piece)
        assert sent < 20e6, "what fits into the sockets' buffers at most"
    assert locked.post("/infer", {"prompt": "a", "max_length": 1}).status_code == 200
