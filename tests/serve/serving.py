"""Runs a server in a thread of the test's own process, on a port of its own."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2 as httpx

from edge_tui.config.settings import Models, Settings
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.engine.text.tokenizer import Tokenizer
from edge_tui.serve.app import ServerApp
from edge_tui.serve.dispatcher import LoopNotifier
from edge_tui.serve.options import Options, bind
from edge_tui.serve.server import HttpServer
from tests.waiting import until

DEMO = Settings(
    models=Models(name="demo/expert", amateur="demo/amateur"), device="cpu", strategy="greedy", max_length=32
)


class Watching(LocalEngine):
    """Records the requests and cancellations of a real engine."""

    def __init__(self, models: dict[str, ModelSpec], wake: Callable[[], None]) -> None:
        super().__init__(models, wake=wake)
        self.requests: list[Request] = []
        self.cancelled: list[int | None] = []

    def submit(self, request: Request, beside: int | None = None) -> int:
        self.requests.append(request)
        return super().submit(request)

    def cancel(self, run: int | None = None) -> None:
        self.cancelled.append(run)
        super().cancel(run)


@dataclass
class Running:
    """Holds a running server and sends it requests."""

    app: ServerApp
    engine: Watching
    url: str
    http: HttpServer
    headers: dict[str, str] = field(default_factory=dict)

    def client(self, **more: Any) -> httpx.Client:
        return client(self.url, self.headers, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        with self.client() as client:
            return client.post(path, json=body, **more)

    def stream(self, path: str, body: Any) -> list[tuple[str, Any]]:
        """Returns all server-sent events of an answer: (event, data)."""
        with self.client() as client, client.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                response.read()
                raise AssertionError(response.text)
            return list(events(response.iter_lines()))

    def signal(self, number: int) -> None:
        """Calls the signal handler as the main thread would."""
        self.http.servers[0].get_loop().call_soon_threadsafe(self.http.handle_signal, number)

    def settle(self, seconds: float = 30.0) -> None:
        """Waits until nothing runs or waits."""
        until(lambda: not self.app.dispatcher.running and not self.app.dispatcher.waiting, seconds)


def client(url: str, headers: dict[str, str], **more: Any) -> httpx.Client:
    """Opens a client that reads no certificates, which takes 30 ms."""
    return httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False, verify=False, **more)


def tokenizer() -> Tokenizer:
    """Opens the tokenizer of the demo pair."""
    return Tokenizer.open(open_checkpoint("demo/expert"))


def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """Yields server-sent events out of lines."""
    kind = ""
    for line in lines:
        if line.startswith("event: "):
            kind = line.removeprefix("event: ")
        elif line.startswith("data: "):
            text = line.removeprefix("data: ")
            yield kind, text if text == "[DONE]" else json.loads(text)
            kind = ""


@contextmanager
def serving(
    settings: Settings = DEMO, *, ready: bool = True, send_buffer: int = 0, **options: Any
) -> Iterator[Running]:
    """Runs a server until the block ends; `send_buffer` is the kernel's for each connection, if not 0."""
    chosen = replace(Options(), **options)
    notifier = LoopNotifier()
    engine = Watching(settings.specs(), notifier.notify)
    app = ServerApp(engine, notifier, settings, chosen)
    http = HttpServer(app, chosen)
    listener = bind(chosen.host, 0)
    if send_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    key = {"Authorization": f"Bearer {chosen.key}"} if chosen.key else {}
    try:
        until(lambda: http.started or not thread.is_alive())
        if ready:
            until(lambda: app.dispatcher.ready)
        yield Running(app, engine, f"http://127.0.0.1:{listener.getsockname()[1]}", http, key)
    finally:
        http.should_exit = True
        thread.join(60)
        assert engine.close(60)
