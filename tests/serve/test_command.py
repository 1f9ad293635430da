"""`edge-tui serve` from the outside: flags, signals, exit statuses."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.serve.conftest import SLOW
from tests.serve.process import COMMAND, process, ready
from tests.serve.serving import until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "slow.py").write_text(SLOW)
    return tmp_path


def _post(url: str, tokens: int, answers: list[Any]) -> threading.Thread:
    def ask() -> None:
        body = {"prompt": "def", "max_length": tokens, "strategy": "slow", "details": True}
        answers.append(httpx.post(f"{url}/infer", json=body, timeout=30, trust_env=False))

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def _health(url: str) -> httpx.Response:
    return httpx.get(f"{url}/health", trust_env=False)


def test_term_lets_work_finish_and_refuses_new_work(folder: Path) -> None:
    with ready("--decoders", str(folder)) as server:
        answers: list[Any] = []
        threads = [_post(server.url, 20, answers) for _ in range(2)]
        until(lambda: _health(server.url).json()["queue"]["length"] == 1)
        server.send(signal.SIGTERM)
        until(lambda: _health(server.url).status_code == 503, 2)
        assert _health(server.url).json()["status"] == "closing"
        late = httpx.post(f"{server.url}/infer", json={"prompt": "a"}, trust_env=False)
        assert late.status_code == 503
        assert late.json()["error"]["code"] == "shutting_down"
        assert server.wait(10) == 143
        for thread in threads:
            thread.join(2)
        assert [answer.status_code for answer in answers] == [200, 200]
        assert [answer.json()["new_tokens"] for answer in answers] == [20, 20]


def test_term_cuts_short_what_takes_longer_than_its_deadline(folder: Path) -> None:
    with ready("--decoders", str(folder), "--drain-seconds", "0.3") as server:
        answers: list[Any] = []
        running = _post(server.url, 1900, answers)
        until(lambda: _health(server.url).json()["running"] == 1)
        waiting = _post(server.url, 1900, answers)
        until(lambda: _health(server.url).json()["queue"]["length"] == 1)
        server.send(signal.SIGTERM)
        began = time.monotonic()
        assert server.wait(10) == 143
        assert time.monotonic() - began < 5
        running.join(2)
        waiting.join(2)
        by_status = {answer.status_code: answer.json() for answer in answers}
        assert set(by_status) == {200, 503}
        assert by_status[200]["finish_reasons"] == ["cancelled"]
        assert by_status[200]["output"]
        assert "shutting down" in by_status[503]["error"]["message"]


@pytest.mark.proof
def test_a_second_signal_does_not_wait(folder: Path) -> None:
    with ready("--decoders", str(folder), "--drain-seconds", "60") as server:
        answers: list[Any] = []
        thread = _post(server.url, 1900, answers)
        until(lambda: _health(server.url).json()["running"] == 1)
        server.send(signal.SIGINT)
        until(lambda: _health(server.url).status_code == 503, 2)
        server.send(signal.SIGINT)
        assert server.wait(5) == 130
        thread.join(2)
        assert answers[0].status_code == 200


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


def test_a_model_that_is_not_there_ends_it(tmp_path: Path) -> None:
    with process("--model", str(tmp_path / "nothing")) as server:
        assert server.wait(40) == 1
        assert any("nothing" in line for line in server.lines)
        assert not any("Traceback" in line for line in server.lines)


def test_the_key_of_the_environment_is_asked_for() -> None:
    with process(environment={"EDGE_TUI_API_KEY": "k1"}) as server:
        until(lambda: server.url, 30)
        assert httpx.get(f"{server.url}/v1/models", trust_env=False).status_code == 401
        key = {"Authorization": "Bearer k1"}
        assert httpx.get(f"{server.url}/v1/models", headers=key, trust_env=False).status_code == 200
        assert not any("API_KEY" in line for line in server.lines)
        server.send(signal.SIGTERM)
        assert server.wait(10) == 143, "also while the model loads"


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from edge_tui.cli import main\n"
        "try:\n    main(['serve', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'fastapi', 'uvicorn', 'httpx2'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.strip().endswith("[]")
    for flag in ("--allow-model-management", "--max-queue", "--api-key-file", "--allow-host"):
        assert flag in done.stdout
