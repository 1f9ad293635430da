"""Kernels are listed without weights, compiled beforehand, and no failure of that costs more than time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_tui.engine.decode import kernel_build
from edge_tui.engine.decode.kernel_build import KernelBuild
from edge_tui.engine.port import ModelSpec, Request

if TYPE_CHECKING:
    from pathlib import Path

ENDS = {
    "killed": "import os, signal; print(9, flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    "raises": "raise SystemExit(1)",
    "says nothing": "import time; time.sleep(600)",
    "finishes": "print(2); print('done'); print('done')",
}


def wait(build: KernelBuild, patience: int = 10**9) -> list[tuple[int, int]]:
    """Waits for a build, or until it was asked that often whether to go on."""
    reports: list[tuple[int, int]] = []
    asked = iter(range(patience))
    try:
        build.wait(lambda done, total: reports.append((done, total)), lambda: next(asked, None) is None)
    finally:
        build.close()
    return reports


@pytest.mark.parametrize("end", ENDS)
def test_a_build_that_fails_is_waited_for_no_longer(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workers_of_a_test.py").write_text(ENDS[end])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    build = KernelBuild({}, "workers_of_a_test")
    reports = wait(build, 20 if end == "says nothing" else 10**9)
    assert reports[-1:] == ([(2, 2)] if end == "finishes" else [])


def test_nothing_is_compiled_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert kernel_build.begin(Request(""), {"model": ModelSpec("demo/expert", device="cpu")}) is None
