from __future__ import annotations

import pytest

from edge_tui.bench.progress import Progress
from edge_tui.bench.report import Results
from edge_tui.bench.session import Session


@pytest.fixture
def session(monkeypatch):
    """A bench on the processor whose bandwidth is taken for granted."""
    monkeypatch.setattr(Session, "measure_bandwidth", lambda self: None)
    opened = Session("cpu", Results("speed"), Progress(1, quiet=True))
    opened.bandwidth = 1e10
    yield opened
    opened.__exit__(None, None, None)
