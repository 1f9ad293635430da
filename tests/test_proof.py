"""Long runs of what the short tests sample: `make proof`."""

from __future__ import annotations

import random
import sys
import unicodedata
from typing import TYPE_CHECKING

import psutil
import pytest

from edge_tui.engine.events import Unloaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.flat import FlatModel
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.util.sanitise import sanitise
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import settle, watch

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1200)]


def test_no_control_survives_a_hundred_thousand_texts() -> None:
    rng = random.Random(0)
    spice = [
        *map(chr, range(0xA0)),
        *"\u200b\u200d\u202e\u2066\ufeff\ud800🏻😀é文",
        "[/",
        "[@click=app.quit]",
    ]
    for _ in range(100_000):
        letters = (chr(rng.randrange(sys.maxunicode + 1)) for _ in range(rng.randrange(8)))
        text = "".join(rng.sample([*letters, *rng.choices(spice, k=6)], k=6))
        clean = sanitise(text)
        assert not any(unicodedata.category(char) in {"Cc", "Cs"} and char != "\n" for char in clean), text
        assert sanitise(clean) == clean


def test_fifty_rounds_of_load_run_unload_leave_memory_level(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "m", arch="llama", vocab=8000, hidden=256, layers=4)
    engine = LocalEngine({"model": ModelSpec(str(checkpoint), device="cpu")})
    resident: list[int] = []
    for turn in range(50):
        strategy = ("greedy", "top_p", "beam", "typical")[turn % 4]
        watch(engine, Request("the quick brown fox", strategy=strategy, max_length=32))
        engine.unload("model")
        settle(engine, Unloaded)
        resident.append(psutil.Process().memory_info().rss)
    assert engine.close(60.0)
    # The first rounds bring up allocator arenas; from then on memory must not climb.
    assert max(resident[-10:]) <= 1.03 * max(resident[5:15])


def test_twenty_failures_in_a_row_leave_the_engine_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    engine = LocalEngine({"model": ModelSpec(str(make_checkpoint(tmp_path / "m")), device="cpu")})
    good = watch(engine, Request("the quick brown fox", strategy="greedy", max_length=8)).ids

    def fail(*args: object, **kwargs: object) -> object:
        raise torch.OutOfMemoryError("out of memory")

    for _ in range(20):
        with monkeypatch.context() as broken:
            broken.setattr(FlatModel, "forward", fail)
            assert "out of memory" in watch(engine, Request("the fox", strategy="top_p")).failed.message
    assert watch(engine, Request("the quick brown fox", strategy="greedy", max_length=8)).ids == good
    assert engine.close(60.0)
