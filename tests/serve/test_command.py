"""`edge-tui serve` from the outside: flags, signals, exit statuses."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from edge_tui.cli import serve
from edge_tui.config.settings import Models
from edge_tui.errors import UsageError
from tests.serve.process import COMMAND, process
from tests.serve.serving import DEMO, Running, serving
from tests.waiting import until


def _ask(url: str, tokens: int, answers: list[Any]) -> threading.Thread:
    def ask() -> None:
        body = {"prompt": "def", "max_length": tokens, "strategy": "slow", "details": True}
        answers.append(httpx.post(f"{url}/infer", json=body, timeout=30, trust_env=False, verify=False))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def _health(url: str) -> httpx.Response:
    return httpx.get(f"{url}/health", trust_env=False, verify=False)


def _queue(url: str) -> tuple[int, int]:
    """Requests that run, and those that wait."""
    said = _health(url).json()
    return said["running"], said["queue"]["length"]


def test_term_lets_work_finish_and_refuses_new_work(slow: str) -> None:
    with serving(drain=60) as server:
        answers: list[Any] = []
        threads = [_ask(server.url, 10, answers) for _ in range(2)]
        until(lambda: _queue(server.url) == (1, 1))
        server.signal(signal.SIGTERM)
        until(lambda: _health(server.url).status_code == 503)
        assert _health(server.url).json()["status"] == "closing"
        late = server.post("/infer", {"prompt": "a"})
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "shutting_down"
        for thread in threads:
            thread.join(20)
        until(lambda: server.http.should_exit)
        assert server.http.status == 143
        assert [answer.status_code for answer in answers] == [200, 200], [a.text for a in answers]
        assert [answer.json()["new_tokens"] for answer in answers] == [10, 10]


def test_term_cuts_short_what_takes_longer_than_its_deadline(slow: str) -> None:
    with serving(drain=0.3) as server:
        answers: list[Any] = []
        running = _ask(server.url, 1900, answers)
        until(lambda: server.app.dispatcher.running)
        waiting = _ask(server.url, 1900, answers)
        until(lambda: server.app.dispatcher.waiting == 1)
        server.signal(signal.SIGTERM)
        running.join(20)
        waiting.join(20)
        assert server.http.status == 143
        by_status = {answer.status_code: answer.json() for answer in answers}
        assert set(by_status) == {200, 503}
        assert by_status[200]["finish_reasons"] == ["cancelled"]
        assert by_status[200]["output"]
        assert "shutting down" in by_status[503]["error"]["message"]


def test_a_second_signal_does_not_wait(slow: str) -> None:
    with serving(drain=60) as server:
        answers: list[Any] = []
        thread = _ask(server.url, 1900, answers)
        until(lambda: server.app.dispatcher.running)
        server.signal(signal.SIGINT)
        until(lambda: _health(server.url).status_code == 503)
        server.signal(signal.SIGINT)
        thread.join(20)
        assert answers[0].status_code == 200
        assert server.http.status == 130


def _refused(*flags: str) -> tuple[int, str]:
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_port_in_use_is_one_line() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        status, said = _refused("--port", port)
    assert status == 2
    assert said.count("\n") == 1
    assert port in said
    assert "in use" in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--host", "0.0.0.0"), "EDGE_TUI_API_KEY"),
        (("--max-queue", "-1"), "--max-queue"),
        (("--api-key", "secret"), "unrecognized"),
        (("--api-key-file", "/nowhere/key"), "/nowhere/key"),
        (("--strategy", "bean"), "strategy"),
    ],
)
def test_flags_that_cannot_be_served_with(flags: tuple[str, ...], words: str) -> None:
    status, said = _refused(*flags)
    assert status == 2
    assert words in said
    assert "Traceback" not in said


def test_libraries_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UsageError, match=r"needs uvicorn; .*edge-tui\[serve\]"):
        serve.run({})


def test_a_model_that_is_not_there_ends_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = replace(DEMO, models=Models(name=str(tmp_path / "nothing")))
    with serving(settings, ready=False) as server:
        until(lambda: server.http.should_exit)
        assert server.http.status == 1
    said = capfd.readouterr().err
    assert "nothing" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("role", ["expert", "amateur"])
def test_so_does_one_that_its_own_strategy_needs(
    role: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    models = replace(DEMO.models, **{role: str(tmp_path / "nothing")})
    with serving(replace(DEMO, models=models, strategy="contrastive"), ready=False) as server:
        until(lambda: server.http.should_exit)
        assert server.http.status == 1
    said = capfd.readouterr().err
    assert "nothing" in said
    assert "ready" not in said


SWAPPED = {"model": "amateur", "expert": "amateur", "amateur": "amateur", "draft": "expert"}


def test_where_models_can_be_loaded_it_waits_for_another(tmp_path: Path) -> None:
    settings = replace(DEMO, strategy="contrastive")
    settings = replace(settings, models=replace(DEMO.models, amateur=str(tmp_path / "nothing")))
    with serving(settings, ready=False, manage=True) as server:
        until(lambda: _health(server.url).json()["status"] == "failed")
        assert "nothing" in _health(server.url).json()["problem"]
        body = {"prompt": "def", "max_length": 2}
        assert server.post("/infer", body).status_code == 500
        assert server.post("/infer", {**body, "strategy": "greedy"}).status_code == 200
        assert _health(server.url).status_code == 503, "what says nothing of a strategy is not decoded"
        loaded = server.post("/models/load", {"role": "amateur", "name": "demo/amateur"})
        assert loaded.json()["loaded"]["name"] == "demo/amateur"
        assert _health(server.url).status_code == 200
        assert server.post("/infer", body).status_code == 200
        assert _roles(server)["draft"] == "demo/amateur", "it goes with the amateur"
        assert server.post("/infer", {**body, "strategy": "speculative"}).status_code == 200
        # A draft of before goes with the amateur it was, also from the list of what is in memory.
        server.post("/models/load", {"role": "draft"})
        server.post("/models/load", {"role": "amateur", "name": "demo/expert"})
        assert _roles(server)["draft"] == "demo/expert"
        assert _models(server)["loaded"]["draft"]["name"] == "demo/expert", "they share their weights"
        server.post("/models/load", {"role": "amateur", "name": "demo/amateur", "precision": "float32"})
        server.post("/models/load", {"role": "draft", "name": "demo/expert"})
        server.post("/models/load", {"role": "model", "name": "demo/amateur"})
        assert _roles(server) == {role: f"demo/{name}" for role, name in SWAPPED.items()}


def test_a_draft_that_failed_is_replaced_with_the_amateur_it_was(tmp_path: Path) -> None:
    models = replace(DEMO.models, amateur=str(tmp_path / "nothing"))
    settings = replace(DEMO, strategy="speculative", models=models)
    with serving(settings, ready=False, manage=True) as server:
        until(lambda: _health(server.url).json()["status"] == "failed")
        server.post("/models/load", {"role": "amateur", "name": "demo/amateur"})
        assert _health(server.url).status_code == 200
        assert server.post("/infer", {"prompt": "def", "max_length": 2}).status_code == 200


def _roles(server: Running) -> dict[str, str]:
    roles: dict[str, str] = _models(server)["roles"]
    return roles


def _models(server: Running) -> Any:
    with server.client() as client:
        return client.get("/models").json()


@pytest.mark.proof
def test_term_is_heeded_while_the_model_loads() -> None:
    with process() as server:
        until(lambda: server.url, 30)
        server.send(signal.SIGTERM)
        assert server.wait(60) == 143


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edge_tui.cli.main import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'fastapi', 'uvicorn', 'httpx2'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip().endswith("[]")
    for flag in ("--allow-model-management", "--max-queue", "--api-key-file", "--allow-host"):
        assert flag in done.stdout
