"""The process that compiles kernels is there before anything slow is imported, where it is likely needed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_tui.engine.decode import kernel_process

WAITS = """
import os, pathlib, sys
pathlib.Path(__file__).with_name("pid").write_text(str(os.getpid()))
print("ready", flush=True)
sys.stdin.read()
"""
COMMAND = """
import sys
from pathlib import Path
from edge_tui.engine.decode import kernel_process

def start(module):
    slow = {"torch", "edge_tui.engine.local", "edge_tui.config.settings"}
    print("started", *sorted(slow & set(sys.modules)))
    raise SystemExit(0)

kernel_process.DRIVER, kernel_process.start = Path("/"), start
from edge_tui.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for a machine with NVIDIA's driver; returns Triton's cache folder, which is not there yet."""
    pytest.importorskip("triton")
    (tmp_path / "program_of_a_test.py").write_text(WAITS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(kernel_process, "DRIVER", tmp_path)
    return tmp_path / "cache"


def is_started_early() -> bool:
    """Tells whether a process waits that was started early, and ends it."""
    kernel_process.start_early("program_of_a_test")
    kernel_process.start_early("program_of_a_test")
    process = kernel_process.take("another_program_of_a_test")
    assert process.stdout is not None
    line = process.stdout.readline()
    kernel_process.end(process)
    assert process.returncode is not None
    kernel_process.end_early()
    return line == b"ready\n"


def test_it_is_started_early_where_nothing_has_been_compiled(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_started_early()
    machine.mkdir()
    (machine / "a kernel").touch()
    assert is_started_early(), "what others compile says nothing about these"
    (machine / f"{kernel_process.STAMP}0").touch()
    assert not is_started_early()


@pytest.mark.parametrize("variable", [("TRITON_INTERPRET", "1"), ("CUDA_VISIBLE_DEVICES", "")])
def test_it_is_not_started_where_no_kernels_are_compiled(
    variable: tuple[str, str], machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    assert not is_started_early()


def test_it_is_not_started_without_a_driver(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_process, "DRIVER", machine / "nothing")
    assert not is_started_early()


def test_one_that_nobody_takes_is_ended(machine: Path) -> None:
    kernel_process.start_early("program_of_a_test")
    file, deadline = machine.with_name("pid"), time.monotonic() + 60.0
    while not file.exists() or not file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    kernel_process.end_early()
    with pytest.raises(ProcessLookupError):
        os.kill(int(file.read_text()), 0)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["run", "hello"], "started\n"),
        (["run", "--device", "cpu", "--model", "/nothing", "hello"], ""),
        (["config", "show"], ""),
    ],
    ids=["run", "cpu", "config"],
)
def test_commands_that_decode_start_it_before_anything_else(
    arguments: list[str], output: str, machine: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=False
    )
    started = "".join(line + "\n" for line in done.stdout.splitlines() if line.startswith("started"))
    assert started == output, done.stderr[-2000:]
