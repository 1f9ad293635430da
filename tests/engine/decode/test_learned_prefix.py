"""A run that goes on from kept tokens is the run that was never interrupted, also where stages learn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edge_tui import decoders
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import Watched, watch
from tests.learner import LEARNER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

HOT = Request("ab", "learner", {"temperature": 1.3}, seed=5, max_length=14)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("learner")
    (folder / "learner.py").write_text(LEARNER)
    decoders.load([folder])
    assert not decoders.current().problems
    model = make_checkpoint(tmp_path_factory.mktemp("models") / "tiny", seed=3)
    engine = LocalEngine({"model": ModelSpec(str(model), device="cpu", precision="float32")})
    yield engine
    assert engine.close(60.0)
    decoders.load([])


def going_on(prefix: Sequence[int], logps: tuple[tuple[float, float], ...] = (), **changes: Any) -> Request:
    """Builds the request that goes on from some tokens, to the same length."""
    length = HOT.max_length - len(prefix)
    return replace(HOT, prefix=tuple(prefix), prefix_logps=logps, max_length=length, **changes)


def logps(seen: Watched, upto: int, row: int = 0) -> tuple[tuple[float, float], ...]:
    """Reads what a run recorded of its first tokens."""
    columns = (map(float, seen.column(name, row)[:upto]) for name in ("raw_logp", "final_logp"))
    return tuple(zip(*columns, strict=True))


@pytest.mark.parametrize("recorded", [True, False])
@pytest.mark.parametrize("kept", [1, 7])
def test_going_on_is_the_uninterrupted_run(engine: LocalEngine, recorded: bool, kept: int) -> None:
    whole = watch(engine, HOT)
    assert len(whole.ids) == 14
    known = logps(whole, kept) if recorded else ()
    rest = watch(engine, going_on(whole.ids[:kept], known))
    assert rest.ids == whole.ids[kept:]
    assert rest.column("final_logp") == pytest.approx(whole.column("final_logp")[kept:], abs=1e-5)


def test_a_stage_that_forgot_would_be_seen(engine: LocalEngine) -> None:
    whole = watch(engine, HOT)
    wrong = tuple((raw - 3.0, final) for raw, final in logps(whole, 7))
    rest = watch(engine, going_on(whole.ids[:7], wrong))
    assert rest.column("final_logp") != pytest.approx(whole.column("final_logp")[7:], abs=1e-3)


def test_a_sample_goes_on_alone_under_its_own_seed(engine: LocalEngine) -> None:
    whole = watch(engine, replace(HOT, samples=3))
    ids = [int(each) for each in whole.column("id", 2)]
    known = logps(whole, 6, row=2)
    rest = watch(engine, going_on(ids[:6], known, seed=7))
    assert rest.ids == ids[6:]


@pytest.mark.parametrize("recorded", [True, False])
def test_an_alternative_is_a_run_in_which_it_was_forced(engine: LocalEngine, recorded: bool) -> None:
    """The state after it is the same, whether its numbers were recorded or are computed."""
    whole = watch(engine, HOT)
    other = int(next(i for i in whole.column("top_ids")[4] if i != whole.ids[4]))
    prefix = (*whole.ids[:4], other)
    forced = watch(engine, going_on(prefix))
    if recorded:
        raw, final = (
            dict(zip(whole.column(ids)[4].tolist(), whole.column(values)[4].tolist(), strict=True))
            for ids, values in (("top_ids", "top_logp"), ("final_ids", "final_top_logp"))
        )
        known = (*logps(whole, 4), (raw[other], final.get(other, float("nan"))))
        again = watch(engine, going_on(prefix, known))
        assert again.ids == forced.ids
    assert len(forced.ids) == 9


def test_kept_tokens_are_learned_under_the_parameters_that_they_had(engine: LocalEngine) -> None:
    """What a change at the seventh token leaves behind is told with the prefix."""
    first = watch(engine, HOT)
    known = logps(first, 7)
    values = {"temperature": 1.3, "tau": 1.0}
    rest = watch(engine, going_on(first.ids[:7], known, values=values, prefix_values=((0, {"tau": 3.0}),)))
    later = watch(engine, going_on(first.ids[:7], known, values=values))
    assert rest.column("final_logp") != pytest.approx(later.column("final_logp"), abs=1e-4)


def test_the_mode_is_that_of_the_new_tokens_alone(engine: LocalEngine) -> None:
    first = watch(engine, HOT)
    values, before = {"tau": 3.0}, ((0, {"tau": 3.0, "temperature": 1.3}),)
    known = going_on(first.ids[:7], logps(first, 7), mode="focused", values=values, prefix_values=before)
    again = going_on(first.ids[:7], (), mode="focused", values=values, prefix_values=before)
    recorded, decoded = (watch(engine, each).column("final_logp") for each in (known, again))
    assert recorded == pytest.approx(decoded, abs=1e-5)


def test_as_many_numbers_as_tokens_or_none(engine: LocalEngine) -> None:
    seen = watch(engine, replace(HOT, prefix=(5, 6), prefix_logps=((0.0, 0.0),)))
    assert seen.failed.message.startswith("prefix_logps has 1 entries, but the prefix 2 tokens")
