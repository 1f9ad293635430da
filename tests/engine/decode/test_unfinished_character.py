"""An answer that ends inside a character: every face shows U+FFFD once, at its end."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from edge_tui.cli.run_output import TextWriter
from edge_tui.config.settings import Models, Settings
from edge_tui.engine.events import Event, Finished, Started, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.engine.remote import RemoteEngine
from edge_tui.history.recorder import Recorder
from edge_tui.history.restore import transcript_of
from edge_tui.history.store import Store
from edge_tui.transcript.transcript import Transcript
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch

pytest.importorskip("fastapi", reason="the server's libraries are not installed")
from tests.serve.serving import serving

LOST = "\ufffd"
HOT = Request("the", "top_p", {"temperature": 3.0, "top_p": 1.0}, max_length=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "bytes", seed=3)


@pytest.fixture(scope="module")
def broken(folder: Path) -> tuple[Request, str]:
    """A request whose answer ends after the first byte of a character, and the text before that."""
    engine = LocalEngine({"model": ModelSpec(str(folder), device="cpu")})
    for seed in range(100):
        whole = watch(engine, replace(HOT, seed=seed))
        texts, strings = whole.column("text"), engine.decode(whole.ids)
        for end in range(1, len(texts)):
            before = "".join(texts[:end])
            # A byte from C2 on begins a character; the tokens before it are whole.
            if "⟨C2⟩" <= strings[end] <= "⟨F4⟩" and before == "".join(strings[:end]) and before.isprintable():
                assert engine.close(60.0)
                return replace(HOT, seed=seed, max_length=end + 1), before
    raise AssertionError("no answer has such an end")


def shown(request: Request, events: list[Event]) -> str:
    """Returns the text that the workbench shows."""
    (started,) = (event for event in events if isinstance(event, Started))
    transcript = Transcript(started, prefix=request.prefix)
    for event in events:
        transcript.apply(event)
    return transcript.text


def printed(events: list[Event]) -> str:
    """Returns the text that `edge-tui run` writes."""
    writer = TextWriter(io.StringIO())
    for event in events:
        if isinstance(event, Started):
            writer.start(event)
        elif isinstance(event, TokenBatch):
            writer.tokens(event)
        elif isinstance(event, Finished):
            writer.finish(event)
    assert isinstance(writer.out, io.StringIO)
    return writer.out.getvalue()


@pytest.mark.parametrize("stop", [(), (LOST + "!",)])
def test_workbench_run_and_history_show_it(
    folder: Path, broken: tuple[Request, str], tmp_path: Path, stop: tuple[str, ...]
) -> None:
    request, before = broken
    request = replace(request, stop=stop)
    inner = LocalEngine({"model": ModelSpec(str(folder), device="cpu")})
    recorder = Recorder(lambda: Store(tmp_path / "history.db"))
    seen = watch(recorder.record(inner), request)
    assert "".join(seen.column("text")) == before
    assert (seen.finished.tail, seen.finished.tails) == (LOST, (LOST,))
    assert shown(request, seen.events) == printed(seen.events) == before + LOST
    assert recorder.close(60.0)
    assert inner.close(60.0)
    store = Store(tmp_path / "history.db")
    (entry,) = store.runs()
    assert entry.answer == before + LOST
    assert transcript_of(store.load(entry.id)).text == before + LOST
    store.close()


def test_the_server_and_its_clients_show_it(folder: Path, broken: tuple[Request, str]) -> None:
    request, before = broken
    settings = Settings(models=Models(name=str(folder)), device="cpu")
    body = {"prompt": request.prompt, "seed": request.seed}
    infer = {
        **body,
        "strategy": request.strategy,
        "params": dict(request.values),
        "max_length": request.max_length,
    }
    openai = {**body, **request.values, "max_tokens": request.max_length}
    with serving(settings) as server:
        assert server.post("/infer", infer).json()["output"] == before + LOST
        assert server.stream("/infer/stream", infer)[-1][1]["output"] == before + LOST
        (choice,) = server.post("/v1/completions", openai).json()["choices"]
        assert choice["text"] == before + LOST
        chunks = [data for _, data in server.stream("/v1/completions", {**openai, "stream": True})][:-1]
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == before + LOST
        remote = RemoteEngine(server.url)
        seen = watch(remote, request)
        assert remote.close(60.0)
    assert shown(request, seen.events) == seen.text == before + LOST
