"""Compares beam search with transformers' own, and with a search that tries everything."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui import decoders
from tests.decoders.conftest import VOCAB, logits_of
from tests.decoders.driver import Run, run

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

PROMPT = [3, 7, 11, 3]
STOPPING = {"off": False, "on": True, "never": "never"}


def ours(model: LlamaForCausalLM, steps: int, eos: list[int], **values: object) -> Run:
    return run(decoders.find("beam"), {"model": logits_of(model)}, PROMPT, steps, VOCAB, eos, **values)


def theirs(
    model: LlamaForCausalLM, steps: int, eos: list[int], early_stopping: str, **values: object
) -> tuple[list[int], float | None]:
    out = model.generate(
        torch.tensor([PROMPT]),
        attention_mask=torch.ones(1, len(PROMPT), dtype=torch.int64),
        max_new_tokens=steps,
        do_sample=False,
        eos_token_id=eos or None,
        pad_token_id=0,
        early_stopping=STOPPING[early_stopping],
        return_dict_in_generate=True,
        output_scores=True,
        **values,
    )
    tokens = out.sequences[0, len(PROMPT) :].tolist()
    score = out.sequences_scores[0].item() if "sequences_scores" in out else None
    return tokens, score


@cache
def likely_ends(model: LlamaForCausalLM, count: int) -> list[int]:
    """Tokens that turn up early, so that as end-of-sequence ids they make hypotheses end at all."""
    seen = ours(model, 10, [], num_beams=4)
    tokens = [token for row in seen.tokens[2:] for token in row]
    return sorted(set(tokens), key=lambda token: -tokens.count(token))[:count]


EVERY = list(itertools.product((1, 2, 3, 4, 5), STOPPING, (-1.0, 0.0, 1.0, 2.0)))
SOME = [
    (1, "off", 1.0),
    (2, "on", -1.0),
    (3, "never", 2.0),
    (3, "off", 0.0),
    (4, "on", 1.0),
    (5, "never", -1.0),
]
"""Every width, way to stop and length penalty with two others."""


@pytest.mark.parametrize(
    ("beams", "early_stopping", "length_penalty"),
    [*SOME, *(pytest.param(*case, marks=pytest.mark.proof) for case in EVERY if case not in SOME)],
)
def test_same_sequences_and_scores_as_generate(
    models: list[LlamaForCausalLM], beams: int, early_stopping: str, length_penalty: float
) -> None:
    for model, ends in zip(models, (0, 1, 2), strict=True):
        eos = likely_ends(model, ends)
        values = {"num_beams": beams, "early_stopping": early_stopping, "length_penalty": length_penalty}
        found = ours(model, 12, eos, **values)
        tokens, score = theirs(model, 12, eos, **values)
        answer = found.answer
        assert answer == tokens[: len(answer)]
        assert set(tokens[len(answer) :]) <= {0}
        assert found.choice is not None
        if score is not None:
            assert found.choice.score == pytest.approx(score, rel=1e-5, abs=1e-5)


def test_repetition_penalty_acts_on_log_probabilities_as_in_generate(
    models: list[LlamaForCausalLM],
) -> None:
    for model, penalty in zip(models, (0.8, 1.3, 0.9), strict=True):
        eos = likely_ends(model, 1)
        values = {"num_beams": 3, "repetition_penalty": penalty, "early_stopping": "off"}
        found = ours(model, 10, eos, **values)
        tokens, score = theirs(model, 10, eos, **values)
        assert found.answer == tokens[: len(found.answer)]
        assert found.choice is not None
        assert found.choice.score == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize(
    "penalties",
    [
        {},
        {"repetition_penalty": 1.3},
        {"repetition_penalty": 0.8},
        {"presence_penalty": 0.7, "frequency_penalty": 0.4},
        {"repetition_penalty": 1.7, "presence_penalty": -0.5, "frequency_penalty": 1.5},
    ],
)
def test_one_beam_is_greedy_under_every_penalty(
    models: list[LlamaForCausalLM], penalties: dict[str, float]
) -> None:
    for model, ends in zip(models, (0, 1, 2), strict=True):
        eos = likely_ends(model, ends)
        model_of = {"model": logits_of(model)}
        greedy = run(decoders.find("greedy"), model_of, PROMPT, 14, VOCAB, eos, **penalties)
        assert ours(model, 14, eos, num_beams=1, **penalties).answer == greedy.answer
        if penalties.keys() <= {"repetition_penalty"}:  # generate() knows no other
            assert greedy.answer == theirs(model, 14, eos, "off", num_beams=1, **penalties)[0]


def test_one_beam_sees_differences_that_a_long_sum_would_round_away() -> None:
    close = torch.tensor([1.0, 1.0, 1.0 + 2**-22, 1.0, -40.0])

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return close.expand(len(ids), -1)

    found = run(decoders.find("beam"), {"model": logits}, [0], 300, 5, num_beams=1)
    assert found.answer == [2] * 300


def test_the_golden_cases_do_end_early_and_at_the_limit(models: list[LlamaForCausalLM]) -> None:
    """Otherwise the comparison above would look at one branch only."""
    lengths = {
        len(ours(model, 12, likely_ends(model, ends), num_beams=3).tokens) == 12
        for model in models
        for ends in (0, 1, 2)
    }
    assert lengths == {True, False}


def test_finds_the_best_of_all_sequences_when_wide_enough() -> None:
    """Three tokens, three steps: a beam of 9 drops nothing, so it must equal trying all 27."""
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(4, 4, 3, generator=generator)

    def logits(ids: torch.Tensor) -> torch.Tensor:
        return weights[ids[:, -2], ids[:, -1]]

    def score(sequence: tuple[int, ...]) -> float:
        ids = (0, 0, *sequence)
        steps = (weights[a, b].log_softmax(-1)[c] for a, b, c in zip(ids, ids[1:], ids[2:], strict=False))
        return float(sum(steps)) / 3

    best = max(itertools.product(range(3), repeat=3), key=score)
    found = run(decoders.find("beam"), {"model": logits}, [0, 0], 3, 3, num_beams=9)
    assert found.choice is not None
    assert found.choice.tokens == best
    assert found.choice.score == pytest.approx(score(best), rel=1e-5)


def test_live_scores_are_the_sums_along_the_recorded_paths(models: list[LlamaForCausalLM]) -> None:
    logits = logits_of(models[0])
    found = ours(models[0], 8, [], num_beams=4)
    from edge_tui.decoders.base import Records

    records = Records(found.tokens, found.parents, found.extras, found.values)
    for step, row in itertools.product(range(8), range(4)):
        path, total = records.path(step, row), 0.0
        for i, token in enumerate(path):
            total += float(logits(torch.tensor([[*PROMPT, *path[:i]]])).log_softmax(-1)[0, token])
        assert found.extras["score"][step][row] == pytest.approx(total, rel=1e-4, abs=1e-4)
    assert len({records.path(7, row) for row in range(4)}) == 4


def test_finished_hypotheses_are_reported_once_with_their_end(models: list[LlamaForCausalLM]) -> None:
    eos = likely_ends(models[1], 1)
    found = ours(models[1], 12, eos, num_beams=4, early_stopping="never", length_penalty=0.0)
    ends = [
        (step, int(found.extras["finished_id"][step][row]), found.extras["finished"][step][row])
        for step, row in itertools.product(range(len(found.tokens)), range(4))
        if found.extras["finished_parent"][step][row] >= 0
    ]
    assert ends
    assert all(token in eos for step, token, _ in ends if step < 11)
    assert found.choice is not None
    assert found.choice.score == max(score for *_, score in ends)
    assert all(token not in eos for row in found.tokens for token in row)


def test_a_search_cut_short_still_has_an_answer(models: list[LlamaForCausalLM]) -> None:
    from edge_tui.decoders.base import Records

    found = ours(models[0], 12, [], num_beams=3)
    cut = 5
    records = Records(
        found.tokens[:cut],
        found.parents[:cut],
        {name: column[:cut] for name, column in found.extras.items()},
        found.values,
    )
    choice = decoders.find("beam").ranked(records)[0]
    assert choice.tokens == records.path(cut - 1, 0)
    assert choice.score == pytest.approx(found.extras["score"][cut - 1][0] / cut)
