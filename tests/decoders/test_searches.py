"""Compares searches with beam search, with sampling, and with a plain loop of groups of beams."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Choice, Records, Rng, draw, noise_of_hypotheses
from edge_tui.decoders.core.random import key_of
from edge_tui.decoders.stochastic_beam import given_maximum
from tests.decoders.driver import Run, run

VOCAB, END, LENGTH = 6, 2, 12


def model(seed: int) -> Callable[[Tensor], Tensor]:
    """A model that looks one token back."""
    weights = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed)) * 1.5
    return lambda ids: weights[ids[:, -1]]


def search(name: str, seed: int, **values: Any) -> Run:
    return run(decoders.find(name), {"model": model(seed)}, [1], LENGTH, VOCAB, [END], seed, **values)


def answers(name: str, found: Run) -> list[Choice]:
    return decoders.find(name).ranked(Records(found.tokens, found.parents, found.extras, found.values))


@pytest.mark.parametrize("name", ["beam_sample", "stochastic_beam"])
@pytest.mark.parametrize("penalty", [1.0, 1.4])
def test_one_beam_is_sampling_at_the_same_seed(name: str, penalty: float) -> None:
    for seed in range(8):
        plain = search("top_k", seed, top_k=0, repetition_penalty=penalty)
        assert search(name, seed, num_beams=1, repetition_penalty=penalty).answer == plain.answer


def test_beam_sampling_at_temperature_zero_is_beam_search() -> None:
    for seed in range(6):
        for beams in (1, 3, 5):
            cold, beam = (
                search("beam_sample", seed, num_beams=beams, temperature=0),
                search("beam", seed, num_beams=beams),
            )
            assert (cold.tokens, cold.answer) == (beam.tokens, beam.answer)
            assert cold.extras["score"] == beam.extras["score"]


def test_beam_sampling_depends_on_the_seed_and_lets_the_best_of_the_drawn_live() -> None:
    found = [
        run(decoders.find("beam_sample"), {"model": model(1)}, [1], LENGTH, VOCAB, [], seed, temperature=2)
        for seed in range(6)
    ]
    assert len({tuple(each.answer) for each in found}) > 3
    assert all(row == sorted(row, reverse=True) for each in found for row in each.extras["score"])


def test_hypotheses_have_noise_of_their_own_and_row_0_that_of_a_draw() -> None:
    z = torch.zeros(3, 50)
    z[1, 7] = -inf
    rng = Rng(torch.full((3,), key_of(4)), torch.tensor([2]))
    noise = noise_of_hypotheses(z, rng)
    assert torch.equal(noise[0], rng.gumbel(torch.arange(50).expand(3, -1))[0])
    assert len(set(noise[z > -inf].tolist())) == 149
    assert draw(z, rng)[0] == noise[0].argmax()


def test_a_stochastic_search_finds_different_answers_whose_scores_never_rise() -> None:
    for seed in range(6):
        found = search("stochastic_beam", seed, num_beams=4)
        listed = answers("stochastic_beam", found)
        assert len({choice.tokens for choice in listed}) == len(listed) == 4
        assert listed[0].score == 0
        assert [choice.score for choice in listed] == sorted((c.score for c in listed), reverse=True)
        for before, after, parents in zip(
            found.extras["score"], found.extras["score"][1:], found.parents[1:], strict=False
        ):
            assert all(score <= before[row] for score, row in zip(after, parents, strict=True))


def test_a_stochastic_search_records_the_sum_of_log_probabilities() -> None:
    found, logits = search("stochastic_beam", 3, num_beams=3), model(3)
    records = Records(found.tokens, found.parents, found.extras, found.values)
    for step in range(len(found.tokens)):
        for row in range(3):
            path = (1, *records.path(step, row))
            steps = (logits(torch.tensor([[a]])).log_softmax(-1)[0, b] for a, b in itertools.pairwise(path))
            assert found.extras["log_sum"][step][row] == pytest.approx(float(sum(steps)), abs=1e-4)


def test_perturbed_scores_get_the_maximum_and_keep_their_order() -> None:
    g = torch.randn(5, 40, generator=torch.Generator().manual_seed(1)) * 9
    g[0, 3:] = -inf
    maximum = torch.tensor([[0.0], [-3.0], [-80.0], [5.0], [-1e9]])
    moved = given_maximum(g, maximum)
    assert torch.equal(moved.amax(-1, keepdim=True), maximum)
    assert torch.equal(moved > -inf, g > -inf)
    ordered = moved.gather(-1, g.argsort(-1, descending=True))
    assert (ordered[:, 1:] <= ordered[:, :-1]).all()
    exact = -(
        (-maximum[1].double()).exp() - (-g[1].double().amax()).exp() + (-g[1].double()).exp()
    ).log()  # as the paper writes it
    torch.testing.assert_close(moved[1].double(), exact, rtol=1e-4, atol=1e-4)


def groups_of_beams(
    logits: Callable[[Tensor], Tensor],
    groups: int,
    size: int,
    diversity: float,
    penalty: float,
    stopping: bool | str,
) -> list[tuple[list[int], float]]:
    """Does what `_group_beam_search` of transformers 4.55.4 does, with lists: every group's hypotheses."""
    live = [[([1], 0.0 if beam == 0 else -1e9) for beam in range(size)] for _ in range(groups)]
    kept: list[list[tuple[list[int], float]]] = [[] for _ in range(groups)]
    done = [False] * groups
    for length in range(1, LENGTH + 1):
        said: list[int] = []
        for group in (number for number in range(groups) if not done[number]):
            ids = torch.tensor([tokens for tokens, _ in live[group]])
            logp = logits(ids).log_softmax(-1) - diversity * torch.bincount(
                torch.tensor(said, dtype=torch.int64), minlength=VOCAB
            )
            totals = logp + torch.tensor([score for _, score in live[group]])[:, None]
            values, places = totals.view(-1).topk(2 * size)
            following = []
            for rank, (score, place) in enumerate(zip(values.tolist(), places.tolist(), strict=True)):
                tokens = [*live[group][place // VOCAB][0], place % VOCAB]
                if tokens[-1] != END:
                    following.append((tokens, score))
                elif rank < size:
                    kept[group].append((tokens, score / length**penalty))
            live[group] = following[:size]
            said += [tokens[-1] for tokens, _ in live[group]]
            kept[group] = sorted(kept[group], key=lambda each: -each[1])[:size]
            reach = LENGTH if stopping == "never" and penalty > 0 else length
            if len(kept[group]) == size:
                done[group] = stopping is True or kept[group][-1][1] >= values[0].item() / reach**penalty
    for group in range(groups):
        if not done[group]:
            kept[group] += [(tokens, score / LENGTH**penalty) for tokens, score in live[group]]
            kept[group] = sorted(kept[group], key=lambda each: -each[1])[:size]
    return sorted((each for group in kept for each in group), key=lambda each: -each[1])


CASES = [
    (beams, groups, diversity, penalty, stopping)
    for beams, groups in ((4, 4), (4, 2), (6, 2), (3, 1), (5, 2))
    for diversity in (0.0, 0.5, 2.0)
    for penalty in (-1.0, 0.0, 1.0, 2.0)
    for stopping in ("off", "on", "never")
]


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if at % 15 == 4 else pytest.mark.proof) for at, case in enumerate(CASES)],
    ids=str,
)
def test_groups_of_beams_are_those_of_a_plain_loop(case: tuple[int, int, float, float, str]) -> None:
    beams, groups, diversity, penalty, stopping = case
    for seed in range(8):
        found = search(
            "diverse_beam",
            seed,
            num_beams=beams,
            num_beam_groups=groups,
            diversity_penalty=diversity,
            length_penalty=penalty,
            early_stopping=stopping,
        )
        size = -(-beams // groups)
        expected = groups_of_beams(
            model(seed), groups, size, diversity, penalty, {"off": False, "on": True}.get(stopping, stopping)
        )
        listed = answers("diverse_beam", found)
        assert [choice.score for choice in listed] == pytest.approx(
            [score for _, score in expected], rel=1e-4
        )
        assert [list(choice.tokens) for choice in listed] == [tokens[1:] for tokens, _ in expected]


def test_diverse_groups_start_apart_and_alike_without_a_penalty() -> None:
    apart = search("diverse_beam", 0, num_beams=4, diversity_penalty=10)
    alike = search("diverse_beam", 0, num_beams=4, diversity_penalty=0)
    assert len(set(apart.tokens[0])) == 4
    assert len(set(alike.tokens[0])) == 1


def test_a_chain_acts_on_what_is_drawn() -> None:
    greedy = search("greedy", 5).answer
    for name in ("beam_sample:top_k", "stochastic_beam:top_k", "diverse_beam:top_k"):
        assert search(name, 5, num_beams=1, top_k=1).answer == greedy
    kept = search("stochastic_beam:top_k", 5, num_beams=3, top_k=2)
    assert all((final > -inf).sum(-1).le(2).all() for final in kept.finals)


@pytest.mark.parametrize("name", ["beam_sample", "diverse_beam", "stochastic_beam"])
def test_a_search_cut_short_still_has_answers(name: str) -> None:
    found = run(decoders.find(name), {"model": model(2)}, [1], 4, VOCAB, [], num_beams=4)
    cut = Records(
        found.tokens[:2], found.parents[:2], {k: v[:2] for k, v in found.extras.items()}, found.values
    )
    listed = decoders.find(name).ranked(cut)
    assert [len(choice.tokens) for choice in listed] == [2] * 4
    assert listed[0].tokens in {cut.path(1, row) for row in range(4)}
