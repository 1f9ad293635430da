"""The phases of a start add up, and a process that fails says why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from edge_tui.bench import report, start
from edge_tui.bench.job import BenchError
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path


def test_the_phases_of_a_start_add_up(tmp_path: Path) -> None:
    model = str(make_checkpoint(tmp_path / "m", layers=1, context=1024))
    save_tokenizer(tmp_path / "m")
    engine = LocalEngine({"model": ModelSpec(model, "float32", "cpu")})
    try:
        times = start.phases(engine, time.time() - 100.0)
    finally:
        engine.close(timeout=30.0)
    parts = [times[name] for name in ("python", "load", "kernels", "prompt", "first")]
    assert min(parts) >= 0.0
    assert sum(parts) == pytest.approx(times["total"])
    assert times["python"] > 100.0
    head, _, line = report.text_table(report.STARTS, [{"start": "here", "torch": 1.5} | times]).splitlines()
    assert [name for name in report.PHASES if f"{name} s" not in head] == []
    assert "1.50" in line


@pytest.mark.proof
def test_a_process_that_fails_says_why(tmp_path: Path) -> None:
    case = start.Case("none", "float32", 1.0, 1.0, cold=True)
    with pytest.raises(BenchError, match="under test ended with 1: "):
        start.measure(case, str(tmp_path / "none"), "cpu")
