"""The decode thread's place: kept while it is free, left when others want it, given back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from edge_tui.engine.decode import cpu_pinning
from edge_tui.engine.decode.cpu_pinning import CpuPinning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

several = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity")
    or len(os.sched_getaffinity(0)) < 2
    or not cpu_pinning._SCHEDSTAT.exists(),
    reason="needs Linux and two processors",
)


@pytest.fixture
def allowed() -> Iterator[set[int]]:
    """Where this thread may run; afterwards again."""
    before = os.sched_getaffinity(0)
    yield before
    os.sched_setaffinity(0, before)


def work(place: CpuPinning, seconds: float, *, until_taken: bool | None = None) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and place.taken is not until_taken:
        sum(range(1000))
        place.look(time.monotonic())


@several
def test_it_stays_and_gives_back(allowed: set[int]) -> None:
    with CpuPinning() as place:
        assert os.sched_getaffinity(0) == allowed
        work(place, 2.0, until_taken=True)
        assert os.sched_getaffinity(0) == {cpu_pinning._here()}
    assert os.sched_getaffinity(0) == allowed
    assert not place.taken


@several
def test_it_leaves_a_processor_that_others_use(allowed: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuPinning, "AWAY", 30.0)
    with CpuPinning() as place:
        work(place, 2.0, until_taken=True)
        (mine,) = os.sched_getaffinity(0)
        order = f"import os\nos.sched_setaffinity(0, {{{mine}}})\nwhile True: pass"
        others = [subprocess.Popen([sys.executable, "-c", order]) for _ in range(2)]
        try:
            work(place, 10.0, until_taken=False)
            assert os.sched_getaffinity(0) == allowed
        finally:
            for other in others:
                other.kill()
                other.wait()


@several
def test_one_processor_is_no_choice(allowed: set[int]) -> None:
    os.sched_setaffinity(0, {min(allowed)})
    with CpuPinning() as place:
        work(place, 0.2)
        assert not place.taken


def test_where_the_system_tells_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_pinning, "_SCHEDSTAT", tmp_path / "none")
    with CpuPinning() as place:
        work(place, 0.2)
        assert not place.taken
