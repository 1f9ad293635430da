"""A tiny random checkpoint and an engine on it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec
from tests.engine.random_checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", arch="qwen2", seed=3)


def _whereabouts(engine: LocalEngine) -> str:
    """Formats the stack of the engine's thread."""
    frame = sys._current_frames().get(engine._thread.ident or 0)
    return "".join(traceback.format_stack(frame)) if frame else "its thread has ended by now"


@pytest.fixture
def open_engine() -> Iterator[Callable[..., LocalEngine]]:
    """Opens engines on the given models, by role, and closes them all afterwards."""
    engines: list[LocalEngine] = []

    def open_one(**models: Path | str) -> LocalEngine:
        specs = {role: ModelSpec(str(path), device="cpu") for role, path in models.items()}
        engines.append(LocalEngine(specs))
        return engines[-1]

    yield open_one
    for engine in engines:
        assert engine.close(10.0), _whereabouts(engine)


@pytest.fixture
def engine(open_engine: Callable[..., LocalEngine], checkpoint: Path) -> LocalEngine:
    return open_engine(model=checkpoint)
