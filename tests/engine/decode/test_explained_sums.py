"""The token taken has the best of the sums that an explanation lists, whatever the strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.engine.local import LocalEngine
from tests.engine.decode.explained_runs import CHAINS, SAMPLERS, check_run, make_models
from tests.learner import LEARNER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    engine = LocalEngine(make_models(tmp_path_factory.mktemp("models")))
    yield engine
    assert engine.close(60.0)


@pytest.mark.parametrize("strategy", [*SAMPLERS, *CHAINS])
def test_the_token_taken_has_the_best_sum(strategy: str, engine: LocalEngine) -> None:
    check_run(engine, strategy, 5, 11)


@pytest.mark.proof
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("strategy", [*SAMPLERS, *CHAINS])
def test_every_token_of_long_runs_has_the_best_sum(strategy: str, seed: int, engine: LocalEngine) -> None:
    """10⁴ steps of each strategy. What others take is a question of its own: none is asked."""
    check_run(engine, strategy, 1000, seed, others=(strategy,))


def test_a_users_strategy_is_explained(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "learner.py").write_text(LEARNER)
    decoders.load([tmp_path])
    try:
        check_run(engine, "learner", 8, 11)
    finally:
        decoders.load([])
