from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_tui.cli import doctor
from edge_tui.cli.doctor import Check, check_text, terminal
from edge_tui.cli.main import main

GOOD = {"TERM": "xterm-kitty", "COLORTERM": "truecolor"}


def found(checks: Any, name: str) -> Check:
    return next(check for check in checks if check.name == name)


@pytest.mark.parametrize("tries_torch", [False, pytest.param(True, marks=pytest.mark.proof)])
def test_every_finding_of_this_machine_is_ok_or_says_what_to_do(
    tries_torch: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not tries_torch:  # a process that imports torch and its kin takes most of the time
        monkeypatch.setattr(doctor, "try_torch", lambda: {"torch": "9", "gpus": 0})
    status = main(["doctor", "--json"])
    checks = [Check(**json.loads(line)) for line in capsys.readouterr().out.splitlines()]
    names = [check.name for check in checks]
    assert {"Python", "settings", "terminal", "locale", "model cache", "GPU", "torch", "Triton"} <= set(names)
    assert {"bitsandbytes", "chat templates"} <= set(names)
    assert status == any(check.status == "error" for check in checks)
    for check in checks:
        assert check.status == "ok" or check.advice, check
        assert not check.advice or check.advice.endswith("."), check


def test_chat_templates_have_a_process_that_keeps_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (doctor.templates().status, doctor.templates().advice) == ("ok", "")
    monkeypatch.setattr(sys, "executable", "/no/python")
    broken = doctor.templates()
    assert (broken.status, "/no/python" in broken.found) == ("warning", True)
    assert broken.advice


@pytest.mark.parametrize(
    ("env", "name", "status", "text"),
    [
        (GOOD, "colours", "ok", "16 million"),
        ({"TERM": "xterm-256color"}, "colours", "ok", "256"),
        ({"TERM": "xterm"}, "colours", "warning", "16 or fewer"),
        (GOOD | {"NO_COLOR": "1"}, "colours", "ok", "NO_COLOR"),
        ({"TERM": "dumb"}, "terminal", "error", "dumb"),
        ({}, "terminal", "error", "not set"),
        ({"TERM": "linux"}, "lines", "warning", "may lack"),
        (GOOD, "clipboard", "ok", "is taken"),
        (GOOD | {"TMUX": "x", "PATH": ""}, "clipboard", "warning", "does not get through"),
    ],
)
def test_the_terminal(env: dict[str, str], name: str, status: str, text: str) -> None:
    check = found(terminal(env, True, os.terminal_size((120, 40))), name)
    assert (check.status, text in check.found) == (status, True), check


@pytest.mark.parametrize(("size", "status"), [((50, 20), "error"), ((70, 20), "warning"), ((80, 24), "ok")])
def test_its_size(size: tuple[int, int], status: str) -> None:
    assert found(terminal(GOOD, True, os.terminal_size(size)), "size").status == status


@pytest.mark.parametrize(
    ("built", "driver", "status"),
    [("13.0", "12.8", "error"), ("12.8", "13.0", "ok"), ("12.9", "12.4", "ok"), ("", "12.4", "warning")],
)
def test_torch_against_the_driver(built: str, driver: str, status: str) -> None:
    assert doctor.torch_build(built, driver).status == status


def test_disk_and_cache(tmp_path: Path) -> None:
    assert doctor.model_cache(tmp_path / "a" / "b", room=1e18).status == "warning"
    assert doctor.model_cache(tmp_path / "a" / "b", room=0).status == "ok"
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("attempt", "name", "status"),
    [
        ("it crashed", "torch", "error"),
        ({"torch": "2", "gpus": 1, "sum": 64.0**3, "triton": "3", "bitsandbytes": "1"}, "torch", "ok"),
        ({"torch": "2", "gpus": 1, "sum": 7.0}, "torch", "error"),
        ({"torch": "2", "gpus": 1, "sum": 64.0**3}, "Triton", "warning"),
        ({"torch": "2", "gpus": 0}, "Triton", "ok"),
        ({"torch": "2", "gpus": 0, "bitsandbytes_error": "OSError: libc"}, "bitsandbytes", "warning"),
    ],
)
def test_libraries(attempt: Any, name: str, status: str) -> None:
    assert found(doctor.libraries(attempt), name).status == status


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("raise OSError('no libcudart')", "OSError: no libcudart"),
        ("import os; os.abort()", "it ended with status"),
        ("import time; time.sleep(99)", "did not come back"),
        ("print('FOUND{}')", ""),
    ],
)
def test_what_hangs_or_crashes_is_a_finding(program: str, says: str) -> None:
    facts = doctor.try_torch(program, timeout=0.5 if "sleep" in program else 60)
    assert says in facts if says else facts == {}


def test_how_it_is_check_text() -> None:
    check = Check("disk", "warning", "full\x1b[2J", "Make room.")
    assert check_text(check) == "! disk          full␛[2J\n                → Make room."
    assert check_text(check, colour=True).startswith("\x1b[33m!")
