"""Exceptions that nobody caught: the terminal is given back, no text is lost, no secret is told."""

from __future__ import annotations

import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from edge_tui.engine.events import Died
from edge_tui.engine.local import failure_of
from edge_tui.tui import prompt_rescue
from edge_tui.tui.screens.confirm import ConfirmScreen
from edge_tui.util import logs
from tests.tui.engines import PictureEngine
from tests.tui.rendered import is_open
from tests.tui.test_workbench import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
ALTERNATE_OFF, CURSOR_ON, MOUSE_OFF = "\x1b[?1049l", "\x1b[?25h", "\x1b[?1003l"
CANARIES = ("C4n4ry", "c4n4ry", "canary-value", "token-of-no-form", "key-in-a-file")
proof = pytest.mark.proof


class Faulty:
    """The app with a fault, at a terminal of its own."""

    def __init__(self, fault: str, env: dict[str, str]) -> None:
        self.fault = fault
        command = ["-m", "tests.tui.crashing", fault]
        self.child = pexpect.spawn(
            sys.executable, command, env=env, dimensions=(24, 80), timeout=20, encoding="utf-8"
        )

    def fail(self, typed: str = "kept text", shown: str = "text") -> None:
        self.child.expect("ready")
        self.child.send(typed)
        self.child.expect_exact(shown)
        self.child.kill(signal.SIGUSR1)
        if self.fault == "input":
            time.sleep(0.3)
            self.child.send("x")

    def end(self) -> str:
        self.child.expect(pexpect.EOF)
        self.child.wait()
        return str(self.child.before)

    def quit(self) -> str:
        self.child.send("\x11")
        return self.end()


@pytest.fixture
def faulty(home: Path) -> Iterator[Callable[[str], Faulty]]:
    started: list[Faulty] = []
    key = home / "key"
    key.write_text("key-in-a-file\n")
    token = home / "cache" / "huggingface" / "token"
    token.parent.mkdir(parents=True)
    token.write_text("token-of-no-form\n")
    env = {**os.environ, "TERM": "xterm-256color", "MY_API_KEY": "canary-value-1", "KEY_FILE": str(key)}

    def start(fault: str) -> Faulty:
        started.append(Faulty(fault, env))
        return started[-1]

    yield start
    for each in started:
        each.child.close(force=True)


def kept() -> list[str]:
    return [each.read_text() for each in logs.state_folder().glob("prompt-*.txt")]


def check(child: pexpect.spawn, output: str) -> None:
    """The terminal is as it was, the log is there, and nothing secret is in either."""
    assert child.exitstatus == 1
    assert output.count(ALTERNATE_OFF) == 1
    assert CURSOR_ON in output
    assert MOUSE_OFF in output
    said = output[output.index(ALTERNATE_OFF) :]
    assert "Traceback" not in output
    assert "edge-tui: something went wrong (" in said
    assert "\x1b[2J" not in said
    (log,) = logs.state_folder().glob("crash-*.log")
    assert log.name in said
    assert "Boom" in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    for canary in CANARIES:
        assert canary not in output
        assert canary not in log.read_text()


@pytest.mark.parametrize(
    "fault",
    [
        "input",
        *(
            pytest.param(each, marks=proof)
            for each in ("closing", "screen", "key", "timer", "tick", "worker", "later", "stopping")
        ),
    ],
)
def test_an_exception_leaves_the_terminal_a_log_and_the_prompt(
    faulty: Callable[[str], Faulty], fault: str
) -> None:
    app = faulty(fault)
    app.fail()
    output = app.end()
    check(app.child, output)
    assert "The prompt is kept: the next start has it." in output
    assert kept() == ["kept text"]


@pytest.mark.parametrize("fault", ["driver", pytest.param("mount", marks=proof)])
def test_an_exception_at_the_start_leaves_the_terminal_and_a_log(
    faulty: Callable[[str], Faulty], fault: str
) -> None:
    app = faulty(fault)
    check(app.child, app.end())
    assert not kept()


@pytest.mark.parametrize(
    "fault", ["output", *(pytest.param(each, marks=proof) for each in ("exit", "cancelled", "unmounting"))]
)
def test_other_ends_are_crashes_too(faulty: Callable[[str], Faulty], fault: str) -> None:
    app = faulty(fault)
    app.fail()
    output = app.end()
    assert app.child.exitstatus == 1
    assert output.count(ALTERNATE_OFF) == 1
    assert "something went wrong" in output
    assert kept() == ["kept text"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("thread", "some thread has stopped"),
        *(
            pytest.param(*each, marks=proof)
            for each in (
                ("loop", "a task in the"),
                ("telemetry", "no longer measured"),
                ("recorder", "new runs are not kept"),
            )
        ),
    ],
)
def test_what_fails_in_the_background_is_said_and_logged(
    faulty: Callable[[str], Faulty], fault: str, said: str
) -> None:
    app = faulty(fault)
    app.fail()
    app.child.expect(r"\s+".join(said.split()))
    output = app.quit()
    assert app.child.exitstatus == 0
    assert output.count(ALTERNATE_OFF) == 1
    (log,) = logs.state_folder().glob("crash-*.log")
    assert "Boom" in log.read_text()
    assert not any(canary in log.read_text() + output for canary in CANARIES)


def test_the_next_start_has_the_prompt_and_one_that_it_died_of_is_put_aside(
    faulty: Callable[[str], Faulty],
) -> None:
    first = faulty("render")
    first.fail("two\x1b[200~\nlines é\x1b[201~", "lines")
    check(first.child, first.end())
    second = faulty("render")
    second.child.expect("unasked")
    assert not kept()
    second.child.expect("ready")
    second.child.kill(signal.SIGUSR1)
    assert "ctrl+o loads it" in second.end().replace("\r\n", "")
    assert not kept()
    (aside,) = logs.state_folder().glob("aside-*.txt")
    assert aside.read_text() == "two\nlines é"
    third = faulty("nothing")
    third.fail()
    third.quit()
    assert third.child.exitstatus == 0
    assert not kept(), "a quit keeps no prompt"


def test_a_signal_keeps_the_prompt(faulty: Callable[[str], Faulty]) -> None:
    app = faulty("nothing")
    app.fail()
    app.child.kill(signal.SIGHUP)
    app.end()
    assert app.child.exitstatus == 128 + signal.SIGHUP
    assert kept() == ["kept text"]


def test_each_start_takes_one_prompt_the_newest_first() -> None:
    for text in ("one", "two", "half \ud800"):
        assert prompt_rescue.save(text) is not None
    assert prompt_rescue.save("put aside", aside=True) is not None
    assert [prompt_rescue.take() for _ in range(4)] == [("half ?", 2), ("two", 1), ("one", 0), ("", 0)]


def test_a_prompt_that_cannot_be_kept_is_printed(home: Path) -> None:
    from edge_tui.tui.crash import report

    (home / "state").write_text("a file where the folder should be")
    said = report(ValueError("bad"), "my \x1b[2J prompt", restored=False)
    assert said.splitlines() == [
        "edge-tui: something went wrong (ValueError: bad); no log could be written.",
        "The prompt could not be kept in a file, so here it is:",
        "my ␛[2J prompt",
    ]


def test_an_exception_that_cannot_say_why_is_still_one() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert logs.summary(Mute()) == "Mute: it cannot say why"
    assert logs.summary(ValueError("x" * 1000)).endswith("x …")
    assert logs.write_crash(ValueError("half \ud800")) is not None


async def test_an_engine_that_died_is_logged_and_the_prompt_stays(picture: Any) -> None:
    engine = PictureEngine()
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        await pilot.press(*"kept")
        engine.events.append(Died("The engine stopped: bad.", "Traceback of hf_C4n4ryC4n4ry"))
        await until(pilot, lambda: is_open(app, ConfirmScreen))
        (log,) = logs.state_folder().glob("crash-*.log")
        assert "Traceback of ‹removed›" in log.read_text()
        await pilot.press("enter")
        await pilot.pause()
        assert app.workbench.prompt.text == "kept"


def test_what_a_run_failed_of_is_said_without_secrets() -> None:
    failed = failure_of(RuntimeError("asked with token=c4n4ry-c4n4ry and password='12345678'"), 1)
    assert "asked with token=‹removed›" in failed.message
    assert "12345678" not in failed.message
    said = "eos_token=<|endoftext|> is token=<pad>"
    assert logs.scrub(said) == said, "control tokens are none"
