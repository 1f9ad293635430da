"""Numbers that stages record for each token: their names in a chain, their values, and their meaning."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_tui import decoders
from edge_tui.decoders.base import Column
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from tests.engine.watch import Watched, watch

SURPRISE = """from edge_tui.decoders.base import Column, Filter
import torch


class Mine(Filter):
    name = "mine"
    title = "mine"
    summary = "Adds up how surprising its tokens were."
    columns = {columns}

    def init(self, env):
        return {{"surprise": torch.zeros(env.rows, {width}, device=env.device)}}

    def apply(self, z, p, s, rng):
        return z * 1.0

    def observe(self, s, p, token):
        s["surprise"].sub_(token.final[:, None])
"""
DECLARED = 'Column("surprise", "Nats so far.", low=0.0),'


@pytest.fixture
def run(tmp_path: Path, engine: LocalEngine) -> Iterator[Callable[..., Watched]]:
    """Decodes with a file that holds the stage."""

    def one(
        strategy: str = "mine", columns: str = DECLARED, width: int = 1, length: int = 12, **request: object
    ) -> Watched:
        (tmp_path / "mine.py").write_text(SURPRISE.format(columns=columns, width=width))
        linecache.clearcache()
        decoders.load([tmp_path])
        assert not decoders.current().problems
        return watch(engine, Request("the quick", strategy, seed=3, max_length=length, **request))  # type: ignore[arg-type]

    yield one
    decoders.load()


def test_a_stage_records_its_state_by_the_name_of_its_link(run: Callable[..., Watched]) -> None:
    seen = run("mine+temperature+top_k+mine#2", samples=2)
    assert seen.started.columns == ("surprise", "surprise_2")
    assert seen.started.column_details == (
        Column("surprise", "Nats so far.", low=0.0),
        Column("surprise_2", "Nats so far.", low=0.0),
    )
    for row in range(2):
        sums = np.cumsum(-np.array(seen.column("final_logp", row)))
        recorded = np.stack(seen.column("extras", row))
        assert recorded[-1, 0] > 1, "it was never sure"
        np.testing.assert_allclose(recorded, np.stack((sums, sums), 1), rtol=1e-5)
    assert run("temperature+top_k", samples=2).ids == seen.ids


def test_it_goes_on_where_it_was(run: Callable[..., Watched]) -> None:
    whole = run()
    logps = [
        (float(raw), float(final))
        for raw, final in zip(whole.column("raw_logp"), whole.column("final_logp"), strict=True)
    ]
    rest = run(length=7, prefix=tuple(whole.ids[:5]), prefix_logps=tuple(logps[:5]))
    np.testing.assert_allclose(
        np.stack(rest.column("extras")), np.stack(whole.column("extras"))[5:], rtol=1e-5
    )


def test_mirostat_records_the_bound_of_the_next_token(engine: LocalEngine) -> None:
    values = {"mirostat_tau": 2.0, "mirostat_eta": 0.3}
    seen = watch(engine, Request("the quick", "mirostat", values, seed=3, max_length=12))
    assert seen.started.columns == ("mu",)
    bits = -np.array(seen.column("final_logp")) / np.log(2)
    bounds = 2 * 2.0 - np.cumsum(0.3 * (bits - 2.0))
    np.testing.assert_allclose(np.stack(seen.column("extras"))[:, 0], bounds, rtol=1e-4)
    assert (bits[1:] <= bounds[:-1] + 1e-4).all()


def test_it_stands_beside_those_of_the_decoder(run: Callable[..., Watched]) -> None:
    seen = run("beam:mine", columns='"surprise",')
    assert seen.started.columns[-2:] == ("over", "surprise")
    assert seen.started.column_details[-1] == Column("surprise")
    assert np.stack(seen.column("extras")).shape == (12, 6)


@pytest.mark.parametrize(
    ("columns", "width", "sentence"),
    [
        ('"other",', 1, "Mine.init returned no 'other', which is one of its columns."),
        (DECLARED, 2, "returned surprise float32 [1, 2] on cpu; it must be float32 [1, 1] on cpu."),
    ],
)
def test_a_column_that_the_state_lacks(
    run: Callable[..., Watched], columns: str, width: int, sentence: str
) -> None:
    assert sentence in run(columns=columns, width=width).failed.message


def test_proposals_are_checked_without_it(run: Callable[..., Watched]) -> None:
    assert "leave mine out of the chain" in run("ngram:mine").failed.message
