"""The queue: bounded, fair, and free of those who have left."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import httpx2 as httpx
import pytest

from edge_tui.serve.fair_queue import FairQueue
from tests.serve.serving import Running, serving
from tests.waiting import until

PROMPT = "def main("


def test_clients_take_turns() -> None:
    queue: FairQueue[str] = FairQueue()
    for item in ("a1", "a2", "a3", "b1", "c1", "c2"):
        queue.push(item[0], item)
    assert len(queue) == 6
    assert [queue.pop() for _ in range(3)] == ["a1", "b1", "c1"]
    queue.push("b", "b2")
    assert [queue.pop() for _ in range(4)] == ["a2", "c2", "b2", "a3"]


def test_a_removed_item_is_not_popped() -> None:
    queue: FairQueue[str] = FairQueue()
    queue.push("a", "a1")
    queue.push("a", "a2")
    for client_id, item in (("a", "a1"), ("a", "a1"), ("b", "a2")):
        queue.remove(client_id, item)
    assert queue.pop() == "a2"
    assert len(queue) == 0


@pytest.mark.parametrize(("clients", "places"), [(24, 6), pytest.param(200, 64, marks=pytest.mark.proof)])
def test_many_clients_before_a_queue_all_get_an_answer_of_their_own(clients: int, places: int) -> None:
    """Each asks for a prompt of its own; whoever is answered must get that prompt's text, and whole."""
    wanted = {n: f"def function_{n}(" for n in range(clients)}

    async def ask(client: httpx.AsyncClient, n: int) -> tuple[int, int, str, str]:
        answer = await client.post("/infer", json={"prompt": wanted[n], "max_length": 4})
        text = answer.json().get("output", "")
        return n, answer.status_code, answer.headers.get("retry-after", ""), text

    async def all_at_once(url: str) -> list[tuple[int, int, str, str]]:
        limits = httpx.Limits(max_connections=clients)
        how = {"timeout": 60, "limits": limits, "trust_env": False, "verify": False}
        async with httpx.AsyncClient(base_url=url, **how) as client:
            return await asyncio.gather(*(ask(client, n) for n in wanted))

    with serving(queue=places) as server:
        answers = asyncio.run(all_at_once(server.url))
        counts = Counter(status for _, status, _, _ in answers)
        assert len(answers) == clients
        assert set(counts) == {200, 429}, counts
        assert counts[200] > places, "the one that runs and those that wait"
        server.settle()
        assert len(server.engine.requests) == counts[200], "nobody was decoded twice or in vain"
        for n, status, retry, text in answers:
            if status == 429:
                assert 1 <= int(retry) <= 60
            else:
                alone = server.post("/infer", {"prompt": wanted[n], "max_length": 4})
                assert alone.json()["output"] == text, n


def test_a_full_queue_says_when_to_come_back_and_how_long_it_is(slow: str) -> None:
    body = {"prompt": PROMPT, "max_length": 1000, "strategy": slow}
    with serving(queue=2) as server, ExitStack() as clients:
        for _ in range(3):
            clients.enter_context(_hang(server, body))
        until(lambda: server.app.dispatcher.waiting == 2)
        with server.client() as client:
            health = client.get("/health")
            assert health.json()["queue"] == {"length": 2, "limit": 2}
            assert health.json()["running"] == 1
        refused = server.post("/infer", {"prompt": "a", "max_length": 1})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["error"]["code"] == "queue_full"
        clients.close()
        server.settle()
        assert len(server.engine.requests) == 1, "those who left while they waited never started"
        assert server.post("/infer", {"prompt": "a", "max_length": 1}).status_code == 200


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/infer", {"max_length": 500}),
        ("/infer/stream", {"max_length": 500, "format": "columns"}),
        ("/v1/completions", {"max_tokens": 500, "stream": True}),
    ],
)
def test_a_client_that_leaves_stops_its_decoding(
    server: Running, slow: str, path: str, more: dict[str, Any]
) -> None:
    """To the end it would take 15 s."""
    before = len(server.engine.cancelled)
    hanging = _hang(server, {"prompt": PROMPT, "strategy": slow, **more}, path)
    until(lambda: server.app.dispatcher.running)
    if path != "/infer":
        assert hanging.recv(15) == b"HTTP/1.1 200 OK"
    hanging.close()
    until(lambda: len(server.engine.cancelled) > before, 10)
    server.settle()
    assert len(server.engine.cancelled) == before + 1


def test_other_requests_are_decoded_when_one_client_reads_nothing(server: Running) -> None:
    hanging = _hang(server, {"prompt": PROMPT, "max_length": 150, "alternatives": 20}, "/infer/stream")
    assert server.post("/infer", {"prompt": PROMPT, "max_length": 2}).status_code == 200
    hanging.close()
    server.settle()


def test_a_client_that_reads_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_tui.serve import stream

    monkeypatch.setattr(stream, "READ_SECONDS", 0.3)
    with serving(queue=0, send_buffer=4096, drain=600) as server:
        body = {"prompt": PROMPT, "max_length": 200, "strategy": "greedy", "format": "columns"}
        hanging = _hang(server, body, "/infer/stream")
        until(lambda: server.engine.requests)
        server.settle(30)
        assert server.post("/infer", {"prompt": "a", "max_length": 1}).status_code == 200, "its slot is free"
        server.signal(signal.SIGTERM)
        until(lambda: server.http.should_exit, 30)  # as soon as no slot is taken
        said = b"".join(iter(lambda: hanging.recv(65536), b""))
        assert not said.endswith(b"0\r\n\r\n"), "it was hung up on"
        hanging.close()


def test_clients_of_one_address_do_not_stand_before_another(slow: str) -> None:
    """Ten requests of one client wait when one of another comes; it is the next but one to be decoded."""
    from edge_tui.engine.port import Request

    with serving(queue=20) as server:
        dispatcher = server.app.dispatcher
        order: list[str] = []

        async def ask(client_id: str, name: str) -> None:
            with closing(dispatcher.admit(client_id)) as slot:
                async for _ in slot.run(Request(PROMPT, strategy=slow, max_length=2)):
                    pass
                order.append(name)

        async def all_of_them() -> None:
            greedy = [asyncio.ensure_future(ask("1.1.1.1", f"greedy {i}")) for i in range(10)]
            while dispatcher.waiting < 9:
                await asyncio.sleep(0)
            await ask("2.2.2.2", "modest")
            await asyncio.gather(*greedy)

        loop = _loop_of(server)
        asyncio.run_coroutine_threadsafe(all_of_them(), loop).result(20)
        assert order.index("modest") <= 2
        assert [name for name in order if name != "modest"] == [f"greedy {i}" for i in range(10)]


def test_a_dead_engine_is_told_at_once(slow: str) -> None:
    with serving() as server:
        answers: list[Any] = []
        body = {"prompt": PROMPT, "max_length": 2000, "strategy": slow}
        thread = threading.Thread(target=lambda: answers.append(server.post("/infer", body)))
        thread.start()
        until(lambda: server.app.dispatcher.running)
        server.engine.alive = lambda: False  # type: ignore[method-assign] # as if its thread had ended
        with server.client() as client:
            assert client.get("/health").status_code == 503
        thread.join(30)  # the answer alone takes a minute
        assert answers[0].status_code in (500, 503)
        assert server.post("/infer", body).status_code == 503


def test_streams_of_many_clients_are_not_mixed(server: Running) -> None:
    def ask(n: int) -> tuple[int, str]:
        told = server.stream("/infer/stream", {"prompt": f"def f{n}(", "max_length": 8})
        text = "".join(data["text"] for kind, data in told if kind == "token")
        assert told[-1][1]["output"] == text
        return n, text

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    for n, text in answers:
        assert server.post("/infer", {"prompt": f"def f{n}(", "max_length": 8}).json()["output"] == text


def _hang(server: Running, body: dict[str, Any], path: str = "/infer") -> socket.socket:
    """Sends a request and leaves the answer unread."""
    import json

    raw = json.dumps(body).encode()
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.socket()
    connection.setsockopt(
        socket.SOL_SOCKET, socket.SO_RCVBUF, 4096
    )  # what is left unread soon stops the sender
    connection.connect((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return connection


def _loop_of(server: Running) -> asyncio.AbstractEventLoop:
    """The event loop that the server runs on."""
    return server.http.servers[0].get_loop()
