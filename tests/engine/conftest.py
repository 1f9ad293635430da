"""A tiny random checkpoint and an engine on it."""

from __future__ import annotations

import faulthandler
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec
from tests.engine.random_checkpoints import make_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", arch="qwen2", seed=3)


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
        if not engine.close(60.0):
            faulthandler.dump_traceback()
            raise AssertionError("an engine's thread does not end; standard error has the stacks")


@pytest.fixture
def engine(open_engine: Callable[..., LocalEngine], checkpoint: Path) -> LocalEngine:
    return open_engine(model=checkpoint)
