"""Chat templates in their process: limits of time and memory, and what becomes of the process."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from edge_tui.engine.text import template_child, template_process
from edge_tui.engine.text.template_child import pack, read_frame
from edge_tui.engine.text.template_process import (
    MEMORY,
    RenderError,
    TemplateProcess,
)
from edge_tui.errors import Cancelled
from tests.engine.template_bombs import BOMBS
from tests.waiting import until

HONEST = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
VARIABLES = {
    "messages": [{"role": "user", "content": "x"}],
    "bos_token": "<s>",
    "add_generation_prompt": True,
}
CODES = ("time", "memory", "output", "recursion", "template", "crash")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def process() -> Iterator[TemplateProcess]:
    process = TemplateProcess(seconds=0.5)
    yield process
    process.close()


def child() -> psutil.Process:
    """Returns the youngest process that renders templates for this one."""
    found = [
        each
        for each in psutil.Process().children()
        if "edge_tui.engine.text.template_child" in each.cmdline()
    ]
    return max(found, key=lambda each: each.pid)


def outcome(process: TemplateProcess, template: str, cancelled: Callable[[], bool] = lambda: False) -> str:
    """Renders; returns the text, or the code of the error."""
    try:
        return process.render(template, VARIABLES, cancelled)
    except RenderError as error:
        return error.code
    except Cancelled:
        return "cancelled"


@contextmanager
def peak(pid: int) -> Iterator[Callable[[], int]]:
    """Follows a process's largest resident memory, in bytes, while the block runs. Needs Linux."""
    found = 0
    over = threading.Event()

    def look() -> None:
        nonlocal found
        while not over.wait(0.005):
            with suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                if known := re.search(r"VmHWM:\s+(\d+) kB", status):
                    found = int(known[1]) * 1024

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield lambda: found
    finally:
        over.set()
        thread.join()


def test_bombs_go_off_in_their_process() -> None:
    """One of each kind: all of them are in the proof below."""
    process = TemplateProcess(seconds=0.3)
    for name in ("equal", "nested loops", "doubling by ~", "output", "deep text", "parentheses"):
        assert (name, outcome(process, BOMBS[name])[:20]) in [(name, code) for code in CODES]
        assert outcome(process, HONEST) == "<user>x", name
    process.close()


@LINUX
@pytest.mark.proof
@pytest.mark.timeout(600)
def test_every_bomb_is_put_out_within_its_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BOMBS) >= 50
    process = TemplateProcess()
    lines, largest = [], 0
    for name, bomb in BOMBS.items():
        assert outcome(process, HONEST) == "<user>x"
        with peak(child().pid) as most:
            began = time.monotonic()
            code = outcome(process, bomb)
            seconds = time.monotonic() - began
            lines.append(f"{name:24} {code:10} {seconds:5.2f} s {most() / 1e6:4.0f} MB")
        assert code in CODES, name
        largest = max(largest, most())
    process.close()
    with capsys.disabled():
        print("", *lines, sep="\n")
        print(f"{len(BOMBS)} bombs: at most {largest / 1e6:.0f} MB")
    assert largest <= MEMORY


def test_a_process_without_the_kernels_limit_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "KERNEL_LIMITS_MEMORY", False)
    process = TemplateProcess(seconds=30, memory=60_000_000)
    assert outcome(process, BOMBS["many values"]) == "memory"
    assert outcome(process, HONEST) == "<user>x"
    process.close()


@pytest.mark.parametrize("sent", ["SIGKILL", "SIGSTOP"])
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_process_that_is_gone_or_hangs_is_replaced(process: TemplateProcess, sent: str) -> None:
    assert outcome(process, HONEST) == "<user>x"
    first = child()
    first.send_signal(getattr(signal, sent))
    if sent == "SIGKILL":
        psutil.wait_procs([first], timeout=5)
        assert outcome(process, HONEST) == "<user>x"
    else:
        assert outcome(process, HONEST + "{# #}" * 99_999) == "time"  # more than a pipe holds
        assert outcome(process, HONEST) == "<user>x"
    assert child().pid != first.pid


def test_a_process_that_ends_amid_a_template_is_a_crash(process: TemplateProcess) -> None:
    assert outcome(process, HONEST) == "<user>x"
    threading.Timer(0.2, child().kill).start()
    assert outcome(process, BOMBS["equal"]) == "crash"
    assert outcome(process, HONEST) == "<user>x"


def test_rendering_can_be_cancelled_while_another_thread_renders() -> None:
    process = TemplateProcess(seconds=60)
    with ThreadPoolExecutor() as pool:
        over = threading.Event()
        first = pool.submit(outcome, process, BOMBS["equal"], over.is_set)
        assert pool.submit(outcome, process, BOMBS["equal"], lambda: True).result(30) == "cancelled"
        over.set()
        assert first.result(30) == "cancelled"
        each = [pool.submit(process.render, "{{ n }}" * 9, {"n": i}) for i in range(40)]
        assert [one.result() for one in each] == [str(i) * 9 for i in range(40)]
    process.close()


@LINUX
def test_the_process_has_no_secrets_no_files_and_no_terminal(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jinja2.py").write_text(
        "raise SystemExit"
    )  # the working directory is no place to import from
    with (tmp_path / "file").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        assert outcome(process, HONEST) == "<user>x"
        found = child()
        assert "hf_secret" not in str(found.environ())
        assert found.num_fds() == 4  # 3 is /dev/null
        assert os.getsid(found.pid) == found.pid


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_bomb_does_not_outlive_a_parent_that_was_killed() -> None:
    code = (
        "from edge_tui.engine.text.template_process import TemplateProcess\n"
        "from tests.engine.template_bombs import BOMBS\n"
        "process = TemplateProcess(seconds=0.3)\n"
        "process.render('', {})\n"
        "print('ready', flush=True)\n"
        "process.render(BOMBS['equal'], {})\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        (rendering,) = psutil.Process(parent.pid).children()
        parent.kill()
    until(lambda: has_ended(rendering), 20)


def has_ended(process: psutil.Process) -> bool:
    """True for a process that is gone, or whose new parent has not yet taken note of its end."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize(
    ("name", "value"), [("executable", "/no/python"), ("executable", ""), ("frozen", True)]
)
def test_a_process_that_cannot_be_started_is_an_error(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    monkeypatch.setattr(sys, name, value, raising=False)
    assert outcome(process, HONEST) == "start"
    monkeypatch.undo()
    assert outcome(process, HONEST) == "<user>x"


def test_a_conversation_beyond_the_limit_is_an_error(
    process: TemplateProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_child, "FRAME_BYTES", 1000)
    assert outcome(process, HONEST + "{# #}" * 200) == "size"
    assert outcome(process, HONEST) == "<user>x"


def test_frames_are_bounded_and_whole_or_nothing() -> None:
    value = {"text": "é\ud800👋\n", "list": [1, None]}
    frame = pack(value)
    assert read_frame(io.BytesIO(frame)) == value
    assert [read_frame(io.BytesIO(frame[:length])) for length in range(len(frame))] == [None] * len(frame)
    with pytest.raises(ValueError, match="a frame of"):
        read_frame(io.BytesIO(b"\xff" * 9))
    with pytest.raises(ValueError, match="JSON cannot hold it"):
        pack(object())
