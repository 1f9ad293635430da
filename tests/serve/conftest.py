"""Servers on the demo pair, and a strategy slow enough to be interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_tui import decoders
from tests.serve.serving import Running, serving

SLOW = '''"""Takes the likeliest token, after a while."""
import time
from edge_tui.decoders.greedy import Greedy as _Greedy

class Slow(_Greedy):
    name = "slow"
    title = "slow"
    summary = "Takes its time."
    rank = 99

    def step(self, outs, s, p, rng):
        time.sleep(0.03)
        return super().step(outs, s, p, rng)
'''


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests that leave it as they found it."""
    with serving() as running:
        yield running


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[str]:
    """A strategy of 30 ms a token."""
    (tmp_path / "slow.py").write_text(SLOW)
    decoders.load([tmp_path])
    yield "slow"
    decoders.load()
