"""Each sample of a run is a run of its own: its seed is the run's and its number in a sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge_tui import decoders
from edge_tui.engine import seeds
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import watch

PROMPT, TOKENS = (40, 41, 42, 43), 12
SAMPLERS = [strategy.name for strategy in decoders.strategies() if strategy.kind == "sample"]
DRAWS = {"auto": {"do_sample": "on"}, "contrastive": {"sample": "on"}}
"""Values with which strategies draw that by default do not."""


RACE = """from edge_tui.decoders.base import Chain, Choice, Decoder, Step, draw, last_logits


class Race(Decoder):
    name = "race"
    title = "race"
    summary = "Draws for each of three hypotheses."
    owns_eos = True

    def rows(self, values):
        return 3

    def init(self, env):
        return Chain(()).init(env)

    def step(self, outs, s, p, rng):
        z = last_logits(outs["model"], s)
        return Step(draw(z, rng), z)

    def finish(self, records):
        return Choice(records.path(len(records.tokens) - 1, 0), 0.0)
"""


@pytest.fixture(scope="module")
def amateur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("models") / "amateur", arch="qwen2", seed=8)


def ids_of(engine: LocalEngine, request: Request) -> list[list[int]]:
    """The tokens of each sample."""
    seen = watch(engine, request)
    return [[int(token) for token in seen.column("id", row)] for row in range(request.samples)]


@pytest.mark.parametrize("strategy", SAMPLERS)
def test_a_sample_alone_is_the_same_run_and_goes_on_the_same(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, amateur: Path, strategy: str
) -> None:
    engine = open_engine(model=checkpoint, amateur=amateur)
    values = DRAWS.get(strategy, {})
    whole = Request("", strategy, values, ids=PROMPT, max_length=TOKENS, seed=5, samples=2)
    samples = ids_of(engine, whole)
    assert [len(sample) for sample in samples] == [TOKENS] * 2
    assert len({tuple(sample) for sample in samples}) == (1 if strategy == "greedy" else 2)
    for number, sample in enumerate(samples):
        alone = replace(whole, samples=1, seed=seeds.of_sample(5, number))
        assert ids_of(engine, alone) == [sample]
    rest = ids_of(engine, replace(alone, prefix=tuple(sample[:7]), max_length=TOKENS - 7))
    assert rest == [sample[7:]]


def test_the_seed_after_the_largest_is_the_smallest(engine: LocalEngine) -> None:
    whole = Request("", "top_k", ids=PROMPT, max_length=TOKENS, seed=seeds.MOST, samples=2)
    assert seeds.of_sample(seeds.MOST, 1) == 0
    alone = [replace(whole, samples=1, seed=seed) for seed in (seeds.MOST, 0)]
    assert ids_of(engine, whole) == [ids for request in alone for ids in ids_of(engine, request)]


def test_hypotheses_of_one_answer_share_their_numbers(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "race.py").write_text(RACE)
    decoders.load([tmp_path])
    try:
        seen = watch(engine, Request("", "race", ids=PROMPT, max_length=TOKENS, seed=5))
    finally:
        decoders.load()
    rows = [[int(token) for token in seen.column("id", row)] for row in range(3)]
    sampled = ids_of(engine, Request("", "top_k", {"top_k": 0}, ids=PROMPT, max_length=TOKENS, seed=5))
    assert rows == sampled * 3
