"""Why two runs of an engine part, by their records and by explanations of both."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_tui.engine.events import TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.transcript.draw_conditions import Side
from edge_tui.transcript.parting import common_length, parting_at
from edge_tui.transcript.question import question_of
from edge_tui.transcript.transcript import Transcript
from tests.engine.decode.explaining import ask
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import watch

LENGTH = 16


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("models") / "model"
    endless = {"eos_token_id": TOKENS + 9}
    make_checkpoint(folder, std=0.2, seed=9, generation=endless, extra=endless)
    (Path(folder) / "tokenizer_config.json").write_text("{}")
    engine = LocalEngine({"model": ModelSpec(str(folder), "float32", "cpu")})
    yield engine
    assert engine.close(60.0)


def run(engine: LocalEngine, strategy: str, seed: int, **values: float) -> Side:
    request = Request("", strategy, values, seed=seed, max_length=LENGTH, ids=tuple(range(40, 60)))
    seen = watch(engine, request)
    transcript = Transcript(seen.started)
    for event in seen.all(TokenBatch):
        transcript.extend(event)
    return Side(request, transcript, {"model": next(iter(engine.loaded().values()))})


def explained(engine: LocalEngine, sides: tuple[Side, Side], index: int) -> list[Side]:
    ids = tuple(side.transcript.token(index).id for side in sides)
    questions = [question_of(side.transcript, side.request, index, ids=ids) for side in sides]
    return [replace(side, why=ask(engine, question)) for side, question in zip(sides, questions, strict=True)]


def part(engine: LocalEngine, one: tuple, other: tuple, seeds: range = range(30)) -> tuple:
    """Finds a seed under which two strategies part."""
    for seed in seeds:
        sides = run(engine, one[0], seed, **one[1]), run(engine, other[0], seed, **other[1])
        index = common_length(sides[0].transcript, sides[1].transcript)
        if index < LENGTH:
            return sides, index
    raise AssertionError("they never part")


@pytest.mark.proof
def test_a_chain_of_several_stages_names_the_one_that_cut(engine: LocalEngine) -> None:
    sides, index = part(engine, ("top_k+min_p", {"top_k": 40, "min_p": 0.4}), ("min_p", {"min_p": 0.0}))
    by_record = parting_at(*sides, index)
    by_explanation = parting_at(*explained(engine, sides, index), index)
    cut = by_explanation.sentence.partition(" cut ")
    assert cut[0] in ("They part because min-p 0.4", "They part because top-k 40")
    # A record tells the stages of its alternatives apart, and of other tokens the strategy alone.
    token = sides[1].transcript.token(index)
    recorded = token.id in [each.id for each in sides[0].transcript.token(index).top]
    assert by_record.sentence == (cut[0] if recorded else "They part because top_k+min_p") + "".join(cut[1:])


def test_the_table_adds_up_and_says_what_became_of_each_token(engine: LocalEngine) -> None:
    sides, index = part(engine, ("top_k", {"top_k": 4}), ("top_p", {"top_p": 0.95}))
    parting = parting_at(*explained(engine, sides, index), index)
    taken, other = (side.transcript.token(index) for side in sides)
    rows = {row.verdicts: row for row in parting.rows}
    cut = rows[f"cut, rank {other.rank + 1}", "● takes it"]
    kept = next(row for verdicts, row in rows.items() if verdicts[0] == "● takes it")
    assert kept.verdicts[1] in ("2nd", "3rd", "4th", "5th")
    # The best sum of all is the one that a stage cut on the other side.
    assert parting.rows[0] is cut
    for row in parting.rows:
        assert row.sum == pytest.approx(row.raw_logp + row.luck, abs=1e-5)
    assert cut.raw_logp == pytest.approx(other.raw_logp, abs=1e-5)
    assert kept.raw_logp == pytest.approx(taken.raw_logp, abs=1e-5)


def test_where_one_draws_nothing_its_places_are_by_probability(engine: LocalEngine) -> None:
    sides, index = part(engine, ("greedy", {}), ("top_p", {"top_p": 0.98}))
    parting = parting_at(*explained(engine, sides, index), index)
    assert not parting.comparable
    (taken,) = [row for row in parting.rows if row.verdicts[0] == "● takes it"]
    assert taken.raw_logp == max(row.raw_logp for row in parting.rows)
    others = [row.verdicts[0] for row in parting.rows if row is not taken]
    assert all(verdict == "" or verdict.startswith("cut, rank ") for verdict in others)
    assert not any(isnan(row.luck) for row in parting.rows if row.verdicts[1])  # the other run has drawn


@pytest.mark.proof
def test_sums_under_a_temperature_are_on_one_scale(engine: LocalEngine) -> None:
    warm = {"temperature": 1.5}
    sides, index = part(engine, ("top_k", {"top_k": 4} | warm), ("top_p", {"top_p": 0.99} | warm))
    parting = parting_at(*explained(engine, sides, index), index)
    assert parting.comparable
    assert parting.rows[0].verdicts[1] == "● takes it"
    sums = [row.sum for row in parting.rows if not isnan(row.sum)]
    assert sums == sorted(sums, reverse=True)


@pytest.mark.proof
@settings(max_examples=80)
@given(
    st.integers(0, 10_000),
    st.integers(1, 60),
    st.sampled_from([("top_p", "top_p"), ("min_p", "min_p"), ("typical", "typical_p"), ("tfs", "tfs")]),
    st.floats(0.05, 0.95),
    st.sampled_from([0.7, 1.0, 1.3]),
)
def test_records_and_explanations_agree(
    engine: LocalEngine, seed: int, k: int, name: tuple[str, str], value: float, temperature: float
) -> None:
    one = run(engine, "top_k", seed, top_k=k, temperature=temperature)
    other = run(engine, name[0], seed, temperature=temperature, **{name[1]: value})
    index = common_length(one.transcript, other.transcript)
    if index == LENGTH:
        return
    parting = parting_at(*explained(engine, (one, other), index), index)
    assert parting.comparable
    assert parting.sentence.startswith("They part because ")
    # A record may know of one cut where there are two; it never names another one.
    of_records = parting_at(one, other, index).sentence.removeprefix("They part because ").rstrip(".")
    if of_records != "a stage of one cut the token that the other took":
        assert all(part in parting.sentence for part in of_records.split(", and "))
