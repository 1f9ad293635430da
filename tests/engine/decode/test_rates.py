"""No rate counts the seconds in which a run's steps are made ready."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_tui.engine.decode import step_runner
from edge_tui.engine.events import Progress
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.decode.test_left_out import Replays, capturable
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from pathlib import Path

    from edge_tui.engine.decode.step_runner import StepRunner


def test_a_capture_is_no_part_of_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    class Slow(Replays):
        """Takes seven seconds to capture."""

        def __init__(self, runner: StepRunner) -> None:
            nonlocal now
            super().__init__(runner)
            now += 7.0

    for module in ("decode_loop", "generation", "run"):
        monkeypatch.setattr(f"edge_tui.engine.decode.{module}.time.perf_counter", lambda: now)
    monkeypatch.setattr(step_runner, "TracedChoice", lambda *_: None)  # as on a GPU
    monkeypatch.setattr("edge_tui.engine.decode.cuda_graphs.Graphs", Slow)
    monkeypatch.setattr(Replays, "made", [], raising=False)
    folder = make_checkpoint(tmp_path, extra={"eos_token_id": None}, generation={"eos_token_id": None})
    save_tokenizer(folder)
    engine = LocalEngine({"model": ModelSpec(str(folder), "float32", "cpu")}, capturable)
    try:
        seen = watch(engine, Request("", "greedy", ids=(5, 6, 7), max_length=12))
    finally:
        assert engine.close(60.0)
    assert len(seen.ids) == 12
    assert len(Replays.made) == 1
    assert now == 107.0
    assert seen.finished.seconds == 0.0
    captures = [event for event in seen.all(Progress) if event.what == "capture"]
    assert [event.run for event in captures] == [seen.finished.run], "rates on a screen begin anew"
