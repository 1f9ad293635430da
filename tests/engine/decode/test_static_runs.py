"""Runs of the transformers tier over static contexts: the tokens that transformers' own caches give."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models import loader
from edge_tui.engine.models.static_context import LEAST_SPAN
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.decode.explaining import add_up, explain
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import save_tokenizer
from tests.engine.watch import Watched, watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edge_tui.engine.models.loader import LoadedModel

KIND = "cwm"
"""Layers with windows and without, which only transformers knows."""
STRATEGIES = (
    *("top_p", "beam", "speculative", "contrastive_search"),
    *(pytest.param(name, marks=pytest.mark.proof) for name in ("greedy", "contrastive", "dola")),
)
IDS = tuple(3 + (7 * at) % 290 for at in range(LEAST_SPAN - 8))
ROLES = ("model", "amateur", "draft")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_tiny(
        tmp_path_factory.mktemp("runs") / KIND, KIND, vocab_size=320, max_position_embeddings=600
    )
    save_tokenizer(path)
    return path


def _load_static(*call: Any) -> LoadedModel:
    loaded = loader.load(*call)
    loaded.model.use_static()  # type: ignore[attr-defined]
    return loaded


@pytest.fixture(scope="module")
def engines(path: Path) -> Iterator[tuple[LocalEngine, LocalEngine]]:
    specs = {role: ModelSpec(str(path), "float32", "cpu") for role in ROLES}
    both = LocalEngine(specs), LocalEngine(specs, _load_static)
    yield both
    for engine in both:
        assert engine.close(60.0)


def _run(engine: LocalEngine, strategy: str, **more: Any) -> Watched:
    return watch(engine, Request("", strategy, seed=4, **({"ids": IDS, "max_length": 14} | more)))


def _tokens(seen: Watched) -> list[int]:
    return list(seen.finished.answer or seen.ids)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tokens_are_those_of_the_librarys_cache(
    strategy: str, engines: tuple[LocalEngine, LocalEngine]
) -> None:
    own, static = engines
    wanted = _tokens(_run(own, strategy))
    assert len(wanted) > LEAST_SPAN - len(IDS)
    assert _tokens(_run(static, strategy)) == wanted
    assert _tokens(_run(static, strategy)) == wanted  # on what is left of the first
    if strategy in ("greedy", "top_p"):
        going_on = {"prefix": tuple(wanted[:5]), "max_length": 9}
        assert _tokens(_run(static, strategy, **going_on)) == _tokens(_run(own, strategy, **going_on))


def test_samples_are_rows_of_one_context(engines: tuple[LocalEngine, LocalEngine]) -> None:
    both = [_run(engine, "top_p", samples=3) for engine in engines]
    columns = [[seen.column("id", row) for row in range(3)] for seen in both]
    assert columns[0] == columns[1]
    assert len({tuple(column) for column in columns[0]}) > 1


def test_a_token_before_and_behind_a_border_is_explained(engines: tuple[LocalEngine, LocalEngine]) -> None:
    """Asking reads an earlier position again; the context then has its later ones as before."""
    _, static = engines
    request = Request("", "top_p", seed=4, ids=IDS, max_length=14)
    seen = watch(static, request)
    for index in (3, 12):
        add_up(explain(static, request, seen, index))
    going_on = watch(static, replace(request, prefix=tuple(seen.ids[:13]), max_length=1))
    assert going_on.ids == seen.ids[13:]
