"""The app on a real pseudo-terminal: what a signal, a quit or a vanished terminal leaves behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pexpect
import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

ALTERNATE_ON, ALTERNATE_OFF = "\x1b[?1049h", "\x1b[?1049l"
CURSOR_ON, MOUSE_OFF = "\x1b[?25h", "\x1b[?1003l"


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., pexpect.spawn]:
    children: list[pexpect.spawn] = []

    def spawn(*flags: str, module: str = "edge_tui", ignore_hangup: bool = False) -> pexpect.spawn:
        env = {
            **os.environ,
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path),
            "TERM": "xterm-256color",
            "OMP_NUM_THREADS": "1",
        }
        env.pop("NO_COLOR", None)
        child = pexpect.spawn(
            sys.executable,
            ["-m", module, *flags],
            env=env,
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=30,
            preexec_fn=_ignore_hangup if ignore_hangup else None,
        )
        children.append(child)
        return child

    yield spawn  # type: ignore[misc]
    for child in children:
        if not child.closed:
            child.close(force=True)


def _ignore_hangup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def left(child: pexpect.spawn) -> str:
    """Everything written until the end."""
    child.expect(pexpect.EOF)
    child.wait()
    return str(child.before)


def type_and_run(child: pexpect.spawn) -> None:
    child.expect("ready", timeout=40)
    child.send("def fibonacci(n):")
    child.send("\n")
    child.expect("decoding")


def test_quit_while_it_streams(start: Callable[..., pexpect.spawn]) -> None:
    child = start("--max-length", "1500")
    type_and_run(child)
    child.send("\x11")
    rest = left(child)
    assert child.exitstatus == 0
    assert ALTERNATE_OFF in rest
    assert CURSOR_ON in rest
    assert MOUSE_OFF in rest


def test_quit_before_the_model_is_there(start: Callable[..., pexpect.spawn]) -> None:
    child = start()
    child.expect("strategy")
    child.send("\x11")
    rest = left(child)
    assert child.exitstatus == 0
    assert ALTERNATE_OFF in rest


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        *(pytest.param(each, marks=pytest.mark.proof) for each in (signal.SIGHUP, signal.SIGINT)),
    ],
)
def test_signals_restore_the_terminal(start: Callable[..., pexpect.spawn], number: signal.Signals) -> None:
    child = start("--max-length", "1500")
    type_and_run(child)
    child.kill(number)
    rest = left(child)
    assert child.exitstatus == 128 + number
    assert ALTERNATE_OFF in rest
    assert CURSOR_ON in rest
    assert "Traceback" not in rest


def test_a_signal_right_after_the_screen_was_taken_restores_it(start: Callable[..., pexpect.spawn]) -> None:
    child = start()
    child.expect_exact(ALTERNATE_ON)
    child.kill(signal.SIGTERM)
    assert ALTERNATE_OFF in left(child)
    assert child.exitstatus == 128 + signal.SIGTERM


def test_a_vanished_terminal_ends_it(start: Callable[..., pexpect.spawn]) -> None:
    child = start("nothing", module="tests.tui.crashing", ignore_hangup=True)
    child.expect("ready", timeout=40)
    process = psutil.Process(child.pid)
    child.ptyproc.fileobj.close()
    child.closed = True
    process.wait(timeout=30)


def test_suspend_and_resume(start: Callable[..., pexpect.spawn]) -> None:
    child = start("nothing", module="tests.tui.crashing")
    child.expect("ready", timeout=40)
    child.send("kept text")
    child.expect("kept")
    child.send("\x1a")
    child.expect_exact(ALTERNATE_OFF)
    _until(lambda: psutil.Process(child.pid).status() == psutil.STATUS_STOPPED)
    child.kill(signal.SIGCONT)
    child.expect_exact(ALTERNATE_ON)
    child.expect("kept text")
    child.send("\x11")
    left(child)
    assert child.exitstatus == 0


def _until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)
