"""Where a step that is computed again takes another token, the explanation says of which kind that is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edge_tui.decoders.base import Criterion
from edge_tui.engine.decode.cut_edges import edge_gaps
from edge_tui.engine.decode.stage_trace import StageChange
from edge_tui.engine.explanation import Candidate, Explanation
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Question, Request
from tests.engine.decode.explaining import ask, question_at
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.watch import watch

BOUND = 0.15
"""Nats that a sum may be off where an int8 model reads at once what a run read token by token."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder: Path = tmp_path_factory.mktemp("models")
    endless = {"eos_token_id": TOKENS + 9}
    make_checkpoint(folder / "model", context=256, std=0.2, seed=9, generation=endless, extra=endless)
    engine = LocalEngine({"model": ModelSpec(str(folder / "model"), "int8", "cpu")})
    yield engine
    assert engine.close(60.0)


def explanations(engine: LocalEngine, strategy: str, **values: float) -> list[tuple[Question, Explanation]]:
    """Explains each token of a run whose context is gone."""
    request = Request("", strategy, values, seed=5, ids=tuple(range(40, 60)), max_length=40)
    run = watch(engine, request)
    watch(engine, replace(request, ids=(7,), max_length=1))
    found = []
    for index in range(0, 40, 4):
        question = question_at(request, run, index)
        ask(engine, question)  # reads the text at once; all questions after it read its last token alone
        why = ask(engine, question)
        assert isinstance(why, Explanation)
        found.append((question, why))
    return found


def asked_of(engine: LocalEngine, question: Question, candidate: Candidate) -> Explanation:
    """Explains a step as if its run had taken another token."""
    why = ask(engine, replace(question, token=candidate.id))
    assert isinstance(why, Explanation)
    assert why.winner != why.token
    return why


def kind_of(why: Explanation) -> str:
    """Tells from the numbers of an explanation by top-k what its sentence must say."""
    bound, token = 2 * BOUND, why.candidates[0]
    place = next(i for i, stage in enumerate(why.stages) if stage.name == "top_k")
    left = [each for each in why.candidates if each.removing_stage < 0]
    last = min(each.logps[place - 1] for each in left)
    first_cut = max(each.logps[place - 1] for each in why.candidates if each not in left)
    better = [each for each in left if each.sum > token.sum + bound]
    if token not in left:
        is_near = last - token.logps[place - 1] <= bound
        return "the run kept it, computed again it is cut" if is_near else "; computed again, "
    if not better:
        return "tie within rounding"
    return (
        ", here it stays"
        if all(each.logps[place - 1] - first_cut <= bound for each in better)
        else "; computed again, "
    )


def test_a_tie_an_edge_and_another_run_are_told_apart(engine: LocalEngine) -> None:
    """Takes, in the place of a token, each of the six likeliest."""
    kinds = set()
    for question, why in explanations(engine, "top_k", top_k=3, temperature=1.4):
        for candidate in sorted(why.candidates, key=lambda each: each.rank)[:6]:
            if candidate.id != why.winner:
                other = asked_of(engine, question, candidate)
                kinds.add(kind := kind_of(other))
                assert kind in other.sentence
                assert ("the run's token stands" in other.note) == ("; computed again" not in kind)
    assert len(kinds) == 4


def test_the_likeliest_of_two_that_are_level_is_a_tie(engine: LocalEngine) -> None:
    said = set()
    for question, why in explanations(engine, "greedy"):
        ranked = sorted(why.candidates, key=lambda each: each.rank)
        second = next(each for each in ranked if each.id != why.winner)
        other = asked_of(engine, question, second)
        assert ("tie within rounding" in other.sentence) == (other.margin <= 2 * BOUND)
        said.add("tie within rounding" in other.sentence)
    assert said == {True, False}


@given(st.lists(st.tuples(st.integers(-40, 0), st.booleans()), min_size=1, max_size=12), st.booleans())
def test_a_gap_is_the_distance_to_the_nearest_that_fared_otherwise(
    tokens: list[tuple[int, bool]], is_cut: bool
) -> None:
    before = torch.tensor([[float(z) / 4 if z > -40 else -inf for z, _ in tokens]])
    after = before.masked_fill(torch.tensor([[not left for _, left in tokens]]), -inf)
    criterion = Criterion("p", before, before[:, :1]) if is_cut else None
    change = StageChange("top_k", "top-k", before, after, criterion=criterion)
    found = edge_gaps([change, change], range(len(tokens)))
    for i, (z, left) in enumerate(tokens):
        others = [abs(z - other) / 4 for other, kept in tokens if other > -40 and kept != left]
        expected = min(others, default=inf) if is_cut and z > -40 else inf
        assert found[i] == pytest.approx((expected, expected), abs=1e-4)
