"""The remote engine on a real server of ours, on one of transformers, and on a small one that misbehaves."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge_tui import decoders
from edge_tui.decoders.base import Column, ParamError
from edge_tui.engine.checkpoints.locate import DEMO
from edge_tui.engine.decode.resolve import resolve_params as resolve
from edge_tui.engine.events import (
    Event,
    Explained,
    Failed,
    Finished,
    FirstToken,
    Loaded,
    Loading,
    Noticed,
    ParamChanged,
    Progress,
    PromptRead,
    Ranked,
    Resolved,
    Started,
    TokenBatch,
)
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Message, ModelSpec, Question, Request
from edge_tui.engine.remote import RemoteEngine, codec, edge_protocol, http_client
from edge_tui.engine.remote.capabilities import ServerInfo, openai_strategies
from edge_tui.engine.remote.explanation_json import write_explanation
from edge_tui.engine.remote.http_client import base_url
from edge_tui.engine.remote.openai_protocol import write_request
from edge_tui.engine.remote.telemetry import RemoteTelemetry
from edge_tui.engine.remote.vocabulary import Vocabulary
from edge_tui.engine.token_fields import OWN, TOKEN_FIELDS, TOP, UNKNOWN
from edge_tui.errors import RequestError
from edge_tui.machine.nvml import GpuSample
from edge_tui.transcript.question import question_of
from edge_tui.transcript.transcript import Transcript
from tests.engine.explanations import assert_alike
from tests.engine.watch import Watched, settle, watch

pytest.importorskip("fastapi", reason="the server's libraries are not installed")

from tests.serve.conftest import SLOW
from tests.serve.serving import Running, serving
from tests.waiting import until

PROMPT = "def main("
ANONYMOUS = "localhost"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of the demo pair, over HTTP to a thread of this process."""
    folder = tmp_path_factory.mktemp("strategies")
    (folder / "slow.py").write_text(SLOW)
    decoders.load([folder])
    with serving() as running:
        yield running
    decoders.load()


@pytest.fixture
def connect() -> Iterator[Callable[..., RemoteEngine]]:
    engines: list[RemoteEngine] = []

    def open_one(url: str, **more: str) -> RemoteEngine:
        engines.append(RemoteEngine(base_url(url), **more))
        return engines[-1]

    yield open_one
    for engine in engines:
        assert engine.close(60.0)


@pytest.fixture
def anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides from clients that a server is one of ours where they call it by another name."""
    get = http_client.HttpClient.get

    async def without(self: http_client.HttpClient, path: str) -> Any:
        return {} if path == "/about" and ANONYMOUS in self.base else await get(self, path)

    monkeypatch.setattr(http_client.HttpClient, "get", without)


@pytest.fixture
def remote(served: Running, connect: Callable[..., RemoteEngine]) -> RemoteEngine:
    return connect(served.url)


@pytest.fixture(scope="module")
def local() -> Iterator[LocalEngine]:
    names = {"model": "demo/expert", "expert": "demo/expert", "amateur": "demo/amateur"}
    engine = LocalEngine({role: ModelSpec(name, device="cpu") for role, name in names.items()})
    yield engine
    assert engine.close(60.0)


# A server of ours.


@pytest.mark.parametrize(
    "request_",
    [
        Request(PROMPT, strategy="contrastive", values={"formula": "obrien2023"}, seed=4, max_length=8),
        Request(PROMPT, strategy="beam", values={"num_beams": 3}, seed=4, max_length=8),
        Request(PROMPT, strategy="top_k", seed=4, samples=3, mode="focused", stop=("\n",), max_length=12),
        Request((Message("user", PROMPT),), strategy="top_p", values={"top_p": 0.8}, seed=4, max_length=4),
        Request(PROMPT, strategy="greedy", max_length=6, prefix=(11, 12)),
    ],
    ids=lambda request: f"{request.strategy}-{request.samples}-{len(request.prefix)}-{request.mode}",
)
def test_events_are_those_of_the_engine_there(
    remote: RemoteEngine, local: LocalEngine, request_: Request
) -> None:
    here, there = watch(local, request_), watch(remote, request_)
    for name in ("row", "step", "parent", "id", "rank", "version"):
        assert _column(here, name) == _column(there, name), name
    for name in ("raw_logp", "final_logp", "entropy", "top_logp", "final_top_logp", "extras"):
        np.testing.assert_allclose(_table(here, name), _table(there, name), atol=1e-3, err_msg=name)
    assert _column(here, "text") == _column(there, "text")
    ours, theirs = here.started, there.started
    same = replace(theirs, run=ours.run, reused_tokens=ours.reused_tokens, seed=ours.seed, values=ours.values)
    assert same == ours
    assert {name: it.value for name, it in theirs.values.items()} == pytest.approx(
        {name: it.value for name, it in ours.values.items()}
    )
    end, there_end = here.finished, there.finished
    for name in ("reason", "new_tokens", "answer", "answer_text", "tail", "reasons", "tails"):
        assert getattr(end, name) == getattr(there_end, name), name
    assert [it.tokens for it in end.ranked] == [it.tokens for it in there_end.ranked]


@pytest.mark.parametrize("length", [0, 2])
def test_a_prompt_is_read_there(remote: RemoteEngine, local: LocalEngine, length: int) -> None:
    request = Request(PROMPT, strategy="greedy", max_length=length, prompt_logps=True)
    here, there = (watch(engine, request).all(PromptRead)[0] for engine in (local, remote))
    for field in fields(PromptRead):
        ours, theirs = getattr(here, field.name), getattr(there, field.name)
        if isinstance(ours, np.ndarray):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), field.name
            np.testing.assert_allclose(ours, theirs, atol=1e-3, err_msg=field.name)
        elif field.name != "run":
            assert ours == pytest.approx(theirs, abs=1e-3) if field.type == "float" else ours == theirs
    shown = [int(i) for i in there.next_ids]
    assert remote.decode(shown) == local.decode(shown)


def test_texts_of_alternatives_are_known(remote: RemoteEngine, local: LocalEngine) -> None:
    seen = watch(remote, Request(PROMPT, strategy="greedy", max_length=3))
    ids = [int(i) for batch in seen.all(TokenBatch) for i in batch.top_ids.flat]
    watch(local, Request(PROMPT, strategy="greedy", max_length=1))
    assert remote.decode(ids) == local.decode(ids)
    assert remote.decode([10**6]) == [""]


def test_the_model_there_is_told(remote: RemoteEngine) -> None:
    remote.load("model")
    loaded = next(e for e in settle(remote, Loaded) if isinstance(e, Loaded) and e.role == "model")
    assert (loaded.name, loaded.tier, loaded.context, loaded.chat) == ("demo/expert", "remote", 2048, False)
    assert "127.0.0.1" in loaded.device
    assert remote.alive()
    assert remote.memory().peak is None
    for strategy in ("greedy", "beam", "contrastive", "slow"):
        assert remote.refusal(strategy) == ""
    assert "does not have" in remote.refusal("bean")


def test_cancelling_closes_the_stream_and_stops_the_decoding(remote: RemoteEngine, served: Running) -> None:
    import httpx2 as httpx

    def running() -> int:
        return int(httpx.get(f"{served.url}/health", trust_env=False, verify=False).json()["running"])

    run = remote.submit(Request(PROMPT, strategy="slow", max_length=1000))
    seen: list[object] = []
    until(lambda: seen.extend(remote.poll()) or any(isinstance(event, TokenBatch) for event in seen))
    assert running() == 1
    remote.cancel(run)
    until(lambda: seen.extend(remote.poll()) or any(isinstance(event, Finished) for event in seen))
    end = next(event for event in seen if isinstance(event, Finished))
    assert end.reason == "cancelled"
    assert end.new_tokens == sum(len(event) for event in seen if isinstance(event, TokenBatch)) > 0
    until(lambda: running() == 0)
    again = watch(remote, Request(PROMPT, strategy="greedy", max_length=2))
    assert again.finished.new_tokens == 2


def test_parameters_are_turned_there(remote: RemoteEngine) -> None:
    run = remote.submit(Request(PROMPT, strategy="slow", max_length=15))
    seen: list[object] = []
    until(lambda: seen.extend(remote.poll()) or any(isinstance(event, TokenBatch) for event in seen))
    remote.set(run, "repetition_penalty", 1.5)
    with pytest.raises(ParamError, match="repetition_penalty"):
        remote.set(run, "repetition_penalty", -1)
    with pytest.raises(ParamError, match="no parameter"):
        remote.set(run, "nonsense", 1)
    until(lambda: seen.extend(remote.poll()) or any(isinstance(event, Finished) for event in seen))
    change = next(event for event in seen if isinstance(event, ParamChanged))
    assert (change.run, change.name, change.value) == (run, "repetition_penalty", 1.5)


def test_refusals_name_the_field(remote: RemoteEngine) -> None:
    for request, field, words in (
        (Request("", strategy="greedy"), "prompt", "empty"),
        (Request("a " * 5000, strategy="greedy"), "prompt", "2048"),
        (Request(PROMPT, strategy="top_k", values={"top_k": -3}), "top_k", "whole number"),
        (Request(PROMPT, strategy="greedy", max_length=10**6), "max_length", "at most"),
    ):
        failed = watch(remote, request).failed
        assert failed.field == field
        assert words in failed.message


def test_models_of_a_server_are_its_own(remote: RemoteEngine) -> None:
    remote.assign("model", ModelSpec("demo/amateur"))
    assert "from here" in _next(remote, Failed).message
    remote.unload("model")
    assert "from here" in _next(remote, Failed).message


def test_a_laptop_needs_no_torch(served: Running) -> None:
    code = (
        "import sys, time\n"
        "from edge_tui.engine.events import Finished\n"
        "from edge_tui.engine.port import Request\n"
        "from edge_tui.engine.remote import RemoteEngine\n"
        "engine = RemoteEngine(sys.argv[1])\n"
        "engine.submit(Request('def', strategy='top_p', max_length=4))\n"
        "deadline, seen = time.monotonic() + 20, []\n"
        "while not any(isinstance(e, Finished) for e in seen) and time.monotonic() < deadline:\n"
        "    seen += engine.poll()\n"
        "    time.sleep(0.002)\n"
        "print(seen[-1].new_tokens, 'torch' in sys.modules, engine.close(2))\n"
    )
    command = [sys.executable, "-c", code, served.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == ["4", "False", "True"]


def test_a_server_that_is_not_there_is_said_in_a_sentence(connect: Callable[..., RemoteEngine]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    engine = connect(f"http://127.0.0.1:{port}")
    engine.load("model")
    assert _next(engine, Failed).message == f"127.0.0.1:{port} cannot be reached; is the server running?"
    assert watch(engine, Request("a")).failed.run == 1
    assert engine.alive()


@pytest.mark.parametrize(
    ("typed", "base"),
    [
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://h:1/v1", "http://h:1"),
        ("https://h/x/v1/", "https://h/x"),
        ("localhost:8000", "http://localhost:8000"),
    ],
)
def test_addresses(typed: str, base: str) -> None:
    assert base_url(typed) == base


@pytest.mark.parametrize(
    "typed", ["", "ftp://h", "http://", "http://user:secret@h", "http://h:99999", "file:///x"]
)
def test_what_is_no_address(typed: str) -> None:
    with pytest.raises(ValueError) as refused:
        base_url(typed)
    assert "secret" not in str(refused.value)


# Any other server.


@pytest.mark.usefixtures("anonymous")
def test_openais_api_of_ours_is_enough(served: Running, connect: Callable[..., RemoteEngine]) -> None:
    """The generic table, on a server whose answers are known: ours, without its own language."""
    engine = _generic(connect, served)
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=8))
    text = "".join(_column(seen, "text"))
    same = watch(connect(served.url), Request(PROMPT, strategy="greedy", max_length=8))
    assert text == "".join(_column(same, "text"))
    np.testing.assert_allclose(_table(seen, "raw_logp"), _table(same, "raw_logp"), atol=1e-3)
    assert seen.finished.new_tokens == 8
    assert seen.finished.reason == "length"
    batch = seen.all(TokenBatch)[0]
    assert engine.decode(batch.top_ids[0, :3].tolist())[0] == batch.text[0]
    assert batch.rank[0] == 0
    assert (batch.top_ids[0, 5:] == -1).all()
    drawn = Request(PROMPT, strategy="top_p", values={"top_p": 0.8, "temperature": 1.2}, seed=6, max_length=8)
    assert _column(watch(engine, drawn), "text") == _column(watch(connect(served.url), drawn), "text")


@pytest.mark.usefixtures("anonymous")
def test_going_on_from_a_token_works_where_raw_text_is_continued(
    served: Running, connect: Callable[..., RemoteEngine]
) -> None:
    engine = _generic(connect, served)
    whole = watch(engine, Request(PROMPT, strategy="greedy", max_length=8, chat=False))
    kept = tuple(whole.ids[:4])
    rest = watch(engine, Request(PROMPT, strategy="greedy", max_length=4, chat=False, prefix=kept))
    assert _column(rest, "text") == _column(whole, "text")[4:]
    assert [int(step) for step in _column(rest, "step")] == [4, 5, 6, 7]
    refused = watch(engine, Request(PROMPT, strategy="greedy", max_length=4, chat=True, prefix=kept))
    assert "chat template" in refused.failed.message


@pytest.mark.usefixtures("anonymous")
def test_what_the_api_cannot_say_is_greyed_out_and_refused(
    served: Running, connect: Callable[..., RemoteEngine]
) -> None:
    engine = _generic(connect, served)
    engine.load("model")
    assert _next(engine, Loaded).name == "demo/expert"
    assert [d.name for d in decoders.strategies() if not engine.refusal(d.name)] == [
        "greedy",
        "top_p",
        "auto",
    ]
    assert "OpenAI" in engine.refusal("beam")
    assert watch(engine, Request(PROMPT, strategy="beam")).failed.field == "strategy"
    told = watch(engine, Request(PROMPT, strategy="greedy", values={"repetition_penalty": 1.3})).failed
    assert told.field == "repetition_penalty"
    assert "does not exist" in told.message
    run = engine.submit(Request(PROMPT, strategy="top_p", max_length=4))
    with pytest.raises(ParamError, match="next one"):
        engine.set(run, "temperature", 0.5)
    assert watch(engine, Request(PROMPT, strategy="top_p", samples=2)).failed.field == "samples"
    unread = watch(engine, Request(PROMPT, strategy="top_p", prompt_logps=True)).failed
    assert unread.field == "prompt_logps"
    assert "only edge-tui serve does" in unread.message


def test_a_server_has_a_chain_whose_stages_it_has() -> None:
    mine = ServerInfo(
        "there", True, {"beam": None, "top_k": None}, stages=frozenset({"top_k", "temperature"})
    )
    for name in ("temperature", "top_k+temperature+top_k#2", "beam:top_k"):
        assert mine.refusal(name) == ""
    assert mine.refusal("beam:min_p") == "The server at there does not have the stage min_p."
    assert "the strategy greedy:top_k" in mine.refusal("greedy:top_k")
    assert "the strategy min_p" in mine.refusal("min_p")


def test_a_nucleus_of_nothing_is_sent_as_a_temperature_of_nothing() -> None:
    request = Request(PROMPT, "top_p", {"top_p": 0, "temperature": 0.7, "presence_penalty": 0.5}, seed=1)
    server = ServerInfo("there", is_edge_tui=False, strategies=openai_strategies(), chat=False)
    settled = resolve(request, decoders.find("top_p"), {})
    body = write_request(request, settled, server, Vocabulary())[1]
    sampling = {name: body[name] for name in body.keys() & {"temperature", "top_p", "presence_penalty"}}
    assert sampling == {"temperature": 0, "presence_penalty": 0.5}


def test_a_model_is_chosen_there_with_its_precision(connect: Callable[..., RemoteEngine]) -> None:
    with serving(manage=True) as server:
        engine = connect(server.url)
        engine.assign("amateur", ModelSpec("demo/expert", "bfloat16"))
        engine.load("amateur")
        until(lambda: server.app.dispatcher.roles.specs["draft"].precision == "bfloat16")
        told: dict[str, Loaded] = {}

        def take() -> bool:
            told.update({event.role: event for event in engine.poll() if isinstance(event, Loaded)})
            return {role for role, event in told.items() if event.precision == "bfloat16"} == {
                "amateur",
                "draft",
            }

        until(take, 30)


# Servers that misbehave.


@contextmanager
def odd_server(
    stream: bytes, about: bytes = b"", port: int = 0, *, single: bytes = b"", missing: int = 0
) -> Iterator[str]:
    """Answers `/about` as told, requests of `/v1/completions` for no stream with `single`, every other with
    these bytes, and hangs up, although it has promised `missing` bytes more."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(about, "application/json") if about else self.send_error(404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if single and b'"stream"' not in body:
                self._answer(single, "application/json") if "chat" not in self.path else self.send_error(404)
            else:
                self._answer(stream, "text/event-stream")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            if missing and self.command == "POST":
                self.send_header("Content-Length", str(len(body) + missing))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with _answering(Handler, port) as url:
        yield url


@contextmanager
def _answering(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    """Runs a server; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


SINGLE = b'{"choices": [{"text": "a"}]}'
OURS = b'{"server": "edge-tui", "status": "ok", "strategies": ["greedy"], "loaded": {}}'
EXPLAINS = OURS.replace(b"{", b'{"explains": true, ', 1)
START = (
    b'event: start\ndata: {"id": "a", "strategy": "greedy", "rows": 1, "columns": [], "prompt_tokens": 1, '
    b'"prefix_tokens": 0, "reused_tokens": 0, "max_new_tokens": 5, "seed": 1, "params": {}, "notices": [], '
    b'"thinking": false}\n\n'
)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"", "ended early"),
        (START, "ended early"),
        (b"event: start\ndata: {nonsense\n\n", "not JSON"),
        (b"event: start\ndata: []\n\n", "another edge-tui"),
        (b"event: start\ndata: {}\n\n", "another edge-tui"),
        (START + b'event: tokens\ndata: {"text": ["a"], "pieces": [[], []]}\n\n', "another edge-tui"),
        (START + b'event: tokens\ndata: {"text": ["a"], "step": [[[]]]}\n\n', "another edge-tui"),
        (START + b"event: end\ndata: 5\n\n", "another edge-tui"),
        (b"data: " + b"[" * 4900 + b"\n\n", "not JSON"),
        (b"x" * 5001, "too long"),
        (b'event: error\ndata: {"error": {"message": "No.", "param": "top_p"}}\n\n', "No."),
    ],
    ids=lambda value: value[:40],
)
def test_nonsense_is_a_sentence(
    stream: bytes, words: str, connect: Callable[..., RemoteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "LINE_BYTES", 5000)
    with odd_server(stream, OURS) as url:
        engine = connect(url)
        failed = watch(engine, Request(PROMPT, strategy="greedy", max_length=5), timeout=10).failed
        assert words in failed.message
        assert not failed.detail, "it is no mistake of ours"
        assert engine.alive()


@pytest.mark.parametrize(
    ("stream", "text"),
    [
        (b'data: {"choices": [{"text": "ab"}]}\n\ndata: {"choices": []}\n\ndata: [DONE]\n\n', "ab"),
        (b'data:{"choices":[{"delta":{"content":"a"}}]}\r\n\r\ndata:{"choices":[{"delta":{}}]}\r\n\r\n', "a"),
        (
            b'data: {"choices": [{"text": "a", "logprobs": {"tokens": ["a"], "token_logprobs": null}}]}\n\n',
            "a",
        ),
        (b'data: {"choices": [{"text": "xy", "logprobs": {"tokens": ["x", "?"]}}]}\n\n', "xy"),
        (b'data: {"choices": [{"delta": {"reasoning_content": "hm", "content": "ok"}}]}\n\n', "hmok"),
        (b': a comment\n\ndata: {"choices": null}\n\ndata: {"choices": [{"text": "z"}]}\n\n', "z"),
    ],
)
def test_chunks_of_all_kinds_are_read(stream: bytes, text: str, connect: Callable[..., RemoteEngine]) -> None:
    with odd_server(stream, single=SINGLE) as url:
        engine = connect(url)
        seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=5))
        assert "".join(_column(seen, "text")) == text
        assert seen.finished.new_tokens == len(_column(seen, "id"))


@pytest.mark.parametrize(
    "stream", [b"data: 5\n\n", b'data: {"choices": 5}\n\n', b'data: {"error": "no"}\n\n']
)
def test_chunks_that_are_none(stream: bytes, connect: Callable[..., RemoteEngine]) -> None:
    with odd_server(stream, single=SINGLE) as url:
        engine = connect(url)
        failed = watch(engine, Request(PROMPT, strategy="greedy", max_length=5)).failed
        assert failed.message
        assert not failed.detail


def test_a_redirect_is_not_followed(connect: Callable[..., RemoteEngine]) -> None:
    """A prompt and a key go to the server that was named, and to no other."""
    reached: list[str] = []

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reached.append(self.path)
            self.send_error(404)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None: ...

    with _answering(Elsewhere) as other:

        class Redirecting(Elsewhere):
            def do_GET(self) -> None:
                self.send_response(307)
                self.send_header("Location", f"{other}{self.path}")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with _answering(Redirecting) as url:
            engine = connect(url, key="k1")
            assert watch(engine, Request(PROMPT, strategy="greedy", max_length=2)).failed.message
    assert not reached


def test_a_silent_server_is_given_up(
    connect: Callable[..., RemoteEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes the connection and says nothing; what it is asked first needs no model."""
    monkeypatch.setattr(http_client, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        engine.load("model")
        assert "does not answer" in _next(engine, Failed, timeout=10).message


def test_a_run_is_cancelled_while_its_server_says_nothing(connect: Callable[..., RemoteEngine]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        engine = connect(f"http://127.0.0.1:{silent.getsockname()[1]}")
        run = engine.submit(Request(PROMPT, strategy="greedy", max_length=5))
        until(lambda: any(isinstance(event, Loading) for event in engine.poll()), 10)
        engine.cancel(run)
        ended = _next(engine, Finished, timeout=10)
        assert (ended.run, ended.reason, ended.new_tokens) == (run, "cancelled", 0)


def test_a_server_that_decodes_nothing_is_said(connect: Callable[..., RemoteEngine]) -> None:
    with odd_server(b"{}") as url:
        engine = connect(url)
        engine.load("model")
        assert "decodes nothing" in _next(engine, Failed).message


def test_the_machine_there_is_watched(served: Running) -> None:
    watched = RemoteTelemetry(base_url(served.url), interval=0.02)
    watched.start()
    until(lambda: watched.latest() is not None)
    first = watched.latest()
    assert first is not None
    assert first.gpu is None or first.gpu.total
    assert 10e6 < first.process_rss < first.ram_used < first.ram_total == psutil.virtual_memory().total
    until(lambda: watched.latest() is not first)
    watched.stop()


MACHINE = b'{"gpu": %s, "process_rss": %s, "cpu_percent": %s, "ram_used": 3, "ram_total": 4}'
LONG = b"9" * 400


@pytest.mark.parametrize(
    "machine",
    [
        b"",
        OURS,
        b"[]",
        b"<html>",
        MACHINE % (b"3", b"1", b"2"),
        MACHINE % (b"null", b"Infinity", b"2"),
        MACHINE % (b"null", LONG, b"2"),
        MACHINE % (b"null", b"-1", b"2"),
        MACHINE % (b"null", b"1", b"NaN"),
        MACHINE % (b"null", b"1", b'"nan"'),
        MACHINE % (b'{"used": %s}' % LONG, b"1", b"2"),
        b'{"others": [{"used": -1}], ' + MACHINE[1:] % (b"null", b"1", b"2"),
    ],
)
def test_a_server_that_tells_nothing_of_its_machine_is_asked_once(machine: bytes) -> None:
    with odd_server(b"", machine) as url:
        watched = RemoteTelemetry(base_url(url), interval=0.0)
        watched.start()
        until(lambda: watched.refusal, 10)
        assert watched.latest() is None


def test_a_server_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    get = http_client.HttpClient.get

    async def counted(self: http_client.HttpClient, path: str) -> Any:
        calls.append(path)
        return await get(self, path)

    monkeypatch.setattr(http_client.HttpClient, "get", counted)
    with odd_server(b"") as url:
        pass
    watched = RemoteTelemetry(base_url(url), interval=0.0)
    watched.start()
    until(lambda: len(calls) > 2)
    port = int(url.rpartition(":")[2])
    assert not watched.refusal
    with odd_server(b"", MACHINE % (b'{"used": 5}', b"1", b"2"), port):
        sample = until(watched.latest, 10)
    assert sample.gpu == GpuSample(used=5)  # it is asked again at once, and away again then
    watched.stop()


def test_a_name_from_outside_is_made_harmless() -> None:
    gpu = b'{"name": "H200\\u001b[2J%s"}' % (b"x" * 500)
    several = b'{"others": [%s], %s' % (b", ".join([gpu] * 99), MACHINE[1:])
    with odd_server(b"", several.replace(b"%s", gpu, 1) % (b"1", b"2")) as url:
        watched = RemoteTelemetry(base_url(url), interval=0.0)
        watched.start()
        until(watched.latest)
        sample = watched.latest()
        watched.stop()
    assert sample is not None
    assert len(sample.others) == 16
    for each in (sample.gpu, *sample.others):
        assert each is not None
        assert each.name is not None
        assert "\x1b" not in each.name
        assert len(each.name) <= 60


def test_the_key_is_shown_and_a_wrong_one_is_said(connect: Callable[..., RemoteEngine]) -> None:
    with serving(key="k1") as server:
        engine = connect(server.url, key="k2")
        engine.load("model")
        assert "EDGE_TUI_API_KEY" in _next(engine, Failed).message
        engine = connect(server.url, key="k1")
        assert watch(engine, Request(PROMPT, strategy="greedy", max_length=2)).finished.new_tokens == 2


def test_a_server_that_vanishes_ends_the_run_with_what_there_is(connect: Callable[..., RemoteEngine]) -> None:
    with odd_server(START, OURS, missing=100) as url:
        engine = connect(url)
        seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=2000))
        assert seen.started.strategy == "greedy"
        assert seen.failed.run == seen.run
        assert "what came so far is kept" in seen.failed.message
        assert engine.alive()


# transformers serve: ignores logprobs, its list of models fails without a cache.


@pytest.fixture(scope="module")
def transformers_server() -> Iterator[str]:
    for module in ("fastapi", "uvicorn", "openai", "accelerate", "typer"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"transformers serve needs {module}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", str(DEMO / "expert")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    process = subprocess.Popen(
        [*command, "--port", str(port), "--host", "127.0.0.1", "--device", "cpu"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: process.poll() is not None or _listens(port), 90)
        assert process.poll() is None, "transformers serve ended"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.proof
def test_transformers_serve_decodes_what_transformers_does(
    transformers_server: str, connect: Callable[..., RemoteEngine], local: LocalEngine
) -> None:
    import httpx2 as httpx

    assert httpx.get(f"{transformers_server}/v1/models", trust_env=False).status_code == 500
    engine = connect(transformers_server)
    engine.load("model")
    loaded = _next(engine, Loaded, timeout=60)
    assert "expert" in loaded.name
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=12), timeout=60)
    same = watch(local, Request(PROMPT, strategy="greedy", max_length=12))
    assert "".join(_column(seen, "text")) == "".join(_column(same, "text"))
    assert seen.finished.new_tokens == 12
    assert all(np.isnan(_column(seen, "raw_logp")))
    assert any("no log-probabilities" in notice for notice in seen.started.notices)
    drawn = Request(PROMPT, strategy="top_p", values={"top_p": 0.9, "temperature": 0.9}, seed=3, max_length=8)
    one, two = (_column(watch(engine, drawn, timeout=60), "text") for _ in range(2))
    assert one == two, "its seed is used"
    kept = tuple(seen.ids[:5])
    rest = watch(engine, Request(PROMPT, strategy="greedy", max_length=3, prefix=kept), timeout=60)
    assert "".join(_column(rest, "text")) == "".join(_column(seen, "text")[5:8])


@pytest.mark.proof
def test_transformers_serve_stops_when_it_is_left(
    transformers_server: str, connect: Callable[..., RemoteEngine]
) -> None:
    engine = connect(transformers_server)
    run = engine.submit(Request(PROMPT, strategy="greedy", max_length=1800))
    seen: list[object] = []
    until(lambda: seen.extend(engine.poll()) or any(isinstance(event, TokenBatch) for event in seen), 60)
    engine.cancel(run)
    until(lambda: seen.extend(engine.poll()) or any(isinstance(event, Finished) for event in seen), 2)
    again = watch(engine, Request(PROMPT, strategy="greedy", max_length=2), timeout=60)
    assert again.finished.new_tokens == 2


def _next(engine: RemoteEngine, kind: type, timeout: float = 60.0) -> Any:
    return [event for event in settle(engine, kind, timeout) if isinstance(event, kind)][-1]


def _listens(port: int) -> bool:
    with socket.socket() as attempt:
        return attempt.connect_ex(("127.0.0.1", port)) == 0


def _generic(connect: Callable[..., RemoteEngine], served: Running) -> RemoteEngine:
    """An engine that is not told that the server is one of ours."""
    return connect(served.url.replace("127.0.0.1", ANONYMOUS))


def _column(seen: Watched, name: str) -> list:
    return [value for batch in seen.all(TokenBatch) for value in getattr(batch, name)]


def _table(seen: Watched, name: str) -> np.ndarray:
    return np.concatenate([getattr(batch, name) for batch in seen.all(TokenBatch)])


def test_template_variables_go_along_in_the_field_that_servers_know() -> None:
    from edge_tui.engine.decode.resolve import resolve_params as settle_request
    from edge_tui.engine.remote import openai_protocol
    from edge_tui.engine.remote.vocabulary import Vocabulary

    request = Request("a", "greedy", template={"enable_thinking": False})
    assert codec.write_request(request)["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in codec.write_request(replace(request, template={}))
    server = ServerInfo("h", False, {"greedy": frozenset()}, chat=True)
    settled = settle_request(request, decoders.find("greedy"), {})
    path, body = openai_protocol.write_request(request, settled, server, Vocabulary())
    assert (path, body["chat_template_kwargs"]) == ("/v1/chat/completions", {"enable_thinking": False})


@pytest.mark.parametrize(
    "event",
    [
        Started(
            3, "top_p", 1, ("x",), 4, 0, 2, 9, 7, {"top_p": Resolved(0.5, "flag")}, ("n",), True, ("<s>",)
        ),
        Started(
            *(3, "mine", 4, ("x", "y"), 4, 0, 2, 9, 7, {}),
            column_details=(Column("x", "Σ.", high=0.0, role="sum"), Column("y", choices=("no", "yes"))),
        ),
        FirstToken(3, 0.25),
        ParamChanged(3, "top_p", 0.5, 1, 4),
        Noticed(3, "Look."),
        Progress("prefill", 1, 2, "name", 3),
        Finished(
            3, "stop", 5, 0.1, 0.2, (1,), "a", -1.5, 10, "t", ("stop",), ("t",), (Ranked((1,), "a", -1.5),), 7
        ),
    ],
    ids=lambda event: type(event).__name__,
)
def test_the_codec_reads_what_it_writes(event: Event) -> None:
    written = codec.write_event(event)
    assert written is not None
    name, data = written
    assert codec.read_event(3, name, json.loads(json.dumps(data))) == event


def test_the_codec_restores_numbers_that_json_lacks() -> None:
    shapes = {field.name: field.shape(1) for field in TOKEN_FIELDS}
    columns = {f.name: np.full((2, *shapes[f.name]), f.empty, f.dtype) for f in TOKEN_FIELDS}
    columns["id"][:] = columns["top_ids"][0, 0] = 7
    batch = TokenBatch(run=1, text=("a", "b"), **columns)
    sent: set[int] = set()
    data = codec.write_tokens(batch, sent, lambda ids: [f"text {i}" for i in ids])
    assert data["pieces"] == [[7], ["text 7"]]
    assert codec.write_tokens(batch, sent, lambda ids: [])["pieces"] == [[], []]
    again = codec.read_tokens(1, json.loads(json.dumps(data, allow_nan=False)), 1)
    for field in TOKEN_FIELDS:
        np.testing.assert_array_equal(getattr(again, field.name), columns[field.name], field.name)
    assert again.text == batch.text


def filled(margins: list[float], counts: list[int], stages: list[list[int]]) -> TokenBatch:
    shapes = {field.name: (len(margins), *field.shape(0)) for field in TOKEN_FIELDS}
    columns = {f.name: np.full(shapes[f.name], f.empty, f.dtype) for f in TOKEN_FIELDS}
    columns["margin"][:], columns["candidate_count"][:] = margins, counts
    columns["removing_stage"][:] = stages
    return TokenBatch(run=1, text=("a",) * len(margins), **columns)


stages_of_tokens = st.lists(st.integers(-3, 40), min_size=TOP, max_size=TOP)
recorded = st.tuples(st.floats(0, width=32), st.integers(-1, 1 << 20), stages_of_tokens)


@settings(max_examples=40)
@given(st.lists(recorded, min_size=1, max_size=4))
@example([(math.inf, 1, [OWN] * TOP), (math.nan, -1, [UNKNOWN] * TOP)])
def test_what_is_recorded_of_a_choice_crosses_the_wire(tokens: list[tuple[float, int, list[int]]]) -> None:
    margins, counts, stages = (list(column) for column in zip(*tokens, strict=True))
    batch = filled(margins, counts, stages)
    data = json.loads(json.dumps(codec.write_tokens(batch, set(), lambda ids: []), allow_nan=False))
    found = codec.read_tokens(1, data, 0)
    for name in ("margin", "candidate_count", "removing_stage"):
        np.testing.assert_array_equal(getattr(found, name), getattr(batch, name), name)
        del data[name]
    older = codec.read_tokens(1, data, 0)  # of a server that records none of it
    assert np.isnan(older.margin).all()
    assert (older.candidate_count == -1).all()
    assert (older.removing_stage == UNKNOWN).all()


def test_the_step_where_proposing_ends_goes_along_where_it_is_set() -> None:
    request = Request("a", "speculative")
    assert "proposing_ends" not in codec.write_request(request), "an older server refuses it"
    for step in (-1, 0, 7):
        assert codec.write_request(replace(request, proposing_ends=step))["proposing_ends"] == step


def test_every_field_of_a_request_is_sent_or_left_here_on_purpose() -> None:
    left = {"prompt", "ids", "sources", "watched"}
    assert {field.name for field in fields(Request)} - set(codec.REQUEST_FIELDS) == left


# Why a token was taken.


def answer_to(engine: Any, question: Question) -> Explained | Failed:
    number, found = engine.explain(question), list[Event]()

    def answered() -> bool:
        found.extend(
            each
            for each in engine.poll()
            if (isinstance(each, Explained) and each.question == number)
            or (isinstance(each, Failed) and each.run == number)
        )
        return bool(found)

    until(answered)
    assert isinstance(found[0], Explained | Failed)
    return found[0]


@pytest.mark.parametrize("strategy", ["top_p", "contrastive", "beam", "mirostat"])
def test_an_explanation_is_that_of_the_engine_there(
    remote: RemoteEngine, local: LocalEngine, strategy: str
) -> None:
    request = Request(PROMPT, strategy, seed=4, max_length=5)
    written = []
    for engine in (local, remote):
        events = watch(engine, request).events
        transcript = Transcript(next(each for each in events if isinstance(each, Started)))
        for each in events:
            transcript.apply(each)
        answer = answer_to(engine, question_of(transcript, request, 3, ids=(5,)))
        assert isinstance(answer, Explained), answer
        written.append(write_explanation(answer.explanation))
    assert_alike(*written)


def test_a_question_that_the_server_refuses_is_a_sentence(remote: RemoteEngine) -> None:
    answer = answer_to(remote, Question(Request(PROMPT, "greedy", seed=1), 10**8))
    assert isinstance(answer, Failed)
    assert (answer.code, answer.detail) == ("cannot_explain", "")
    assert "ids are whole numbers from 0 to" in answer.message


@pytest.mark.usefixtures("anonymous")
def test_a_server_of_openais_kind_explains_nothing(served: Running, connect: Any) -> None:
    engine = connect(served.url.replace("127.0.0.1", ANONYMOUS))
    answer = answer_to(engine, Question(Request(PROMPT, "greedy", seed=1), 5))
    assert isinstance(answer, Failed)
    assert answer.code == "cannot_explain"
    assert "speaks OpenAI's API, which tells too little of a token to explain it." in answer.message


@pytest.mark.parametrize(
    ("about", "answer", "code", "says"),
    [
        (OURS, b"{}", "cannot_explain", "explains no token: a newer one does."),
        (EXPLAINS, b'{"token": 5}', "connection", "speaks another edge-tui's language (explain)"),
        (EXPLAINS, b"[]", "connection", "speaks another edge-tui's language (explain)"),
        (EXPLAINS, b"<html>", "connection", "something that is not JSON"),
    ],
)
def test_servers_that_cannot_answer_a_question(
    connect: Any, about: bytes, answer: bytes, code: str, says: str
) -> None:
    with odd_server(answer, about) as url:
        failed = answer_to(connect(url), Question(Request(PROMPT, "greedy", seed=1), 5))
    assert isinstance(failed, Failed)
    assert failed.code == code
    assert says in failed.message
    assert failed.detail == ""


def test_what_is_taken_back_at_once_is_answered_too(remote: RemoteEngine) -> None:
    run = remote.submit(Request(PROMPT, "greedy", max_length=200))
    remote.cancel(run)
    number = remote.explain(Question(Request(PROMPT, "greedy", seed=1), 5))
    remote.cancel(number)
    found: list[Event] = []

    def ended() -> bool:
        found.extend(each for each in remote.poll() if isinstance(each, Finished | Failed))
        return len(found) == 2

    until(ended)
    assert {each.run: getattr(each, "reason", getattr(each, "code", "")) for each in found} == {
        run: "cancelled",
        number: "cancelled",
    }


# The tokens of a text.


def ids_of(engine: Any, text: str) -> tuple[int, ...]:
    found: list[tuple[int, ...] | None] = [None]

    def answered() -> bool:
        found[0] = engine.ids(text)
        return found[0] is not None

    until(answered)
    assert found[0] is not None
    return found[0]


@pytest.mark.parametrize("text", ["main", " two words", "é", "<|endoftext|>", "\x1b[31m"])
def test_the_tokens_of_a_text_are_those_of_the_engine_there(
    remote: RemoteEngine, local: LocalEngine, text: str
) -> None:
    watch(local, Request(PROMPT, "greedy", max_length=1))
    assert remote.ids(text) is None, "the answer comes later, and nobody waits for it"
    ids = ids_of(remote, text)
    assert ids == local.ids(text)
    assert remote.decode(ids) == local.decode(ids)


def test_each_question_for_the_tokens_of_a_text_goes_to_the_server(
    remote: RemoteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model there may be another by then."""
    asked, encode = [], edge_protocol.encode

    async def counted(text: str, *more: Any) -> tuple[int, ...]:
        asked.append(text)
        return await encode(text, *more)

    monkeypatch.setattr(edge_protocol, "encode", counted)
    assert ids_of(remote, " two words") == ids_of(remote, " two words")
    assert asked == [" two words"] * 2


def test_a_text_that_the_server_refuses_is_a_sentence_each_time(remote: RemoteEngine) -> None:
    for _ in range(2):
        with pytest.raises(RequestError, match="at most 1000 characters"):
            ids_of(remote, "a" * 1001)


ENCODES = OURS.replace(b"{", b'{"encodes": true, ', 1)


@pytest.mark.parametrize(
    ("about", "answer", "says"),
    [
        (OURS, b"{}", "turns no text into tokens: a newer one does."),
        (ENCODES, b'{"ids": 5}', "speaks another edge-tui's language (tokens)"),
        (ENCODES, b'{"ids": ["a"], "texts": []}', "speaks another edge-tui's language (tokens)"),
        (ENCODES, b"[]", "speaks another edge-tui's language (tokens)"),
        (ENCODES, b"<html>", "something that is not JSON"),
    ],
)
def test_servers_that_turn_no_text_into_tokens(connect: Any, about: bytes, answer: bytes, says: str) -> None:
    with odd_server(answer, about) as url, pytest.raises(RequestError) as raised:
        ids_of(connect(url), "main")
    assert says in str(raised.value)


@pytest.mark.usefixtures("anonymous")
def test_a_server_of_openais_kind_turns_no_text_into_tokens(served: Running, connect: Any) -> None:
    engine = connect(served.url.replace("127.0.0.1", ANONYMOUS))
    with pytest.raises(RequestError, match="speaks OpenAI's API, which turns no text into tokens"):
        ids_of(engine, "main")
