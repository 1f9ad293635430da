"""Looks n-grams up as transformers does, and leaves the text that sampling writes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.decoders.ngram import NGram, look_up
from tests.decoders.driver import numbers, param_values, run, table

VOCAB = 7
DECODER = decoders.find("ngram")


def proposals(ids: list[int], longest: int, count: int) -> list[int]:
    history = torch.full((1, 64), -1)
    history[0, 64 - len(ids) :] = torch.tensor(ids)
    return look_up(history, torch.tensor([[float(longest)]]), count)[0].tolist()


@pytest.mark.parametrize(
    ("ids", "longest", "expected"),
    [
        ([1, 2, 3, 9, 5, 2, 3], 3, [9, 5, 2, 3]),  # after the last two
        ([2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 3, [9, 1, 2, 3]),  # three tokens are surer than two
        ([2, 3, 8, 1, 2, 3, 9, 1, 2, 3], 2, [8, 1, 2, 3]),  # the first place
        ([4, 6, 4], 3, [6, 4, 6, 4]),  # behind the end its own proposals
        ([5, 5], 3, [5, 5, 5, 5]),
        ([1, 2, 3], 3, [3, 3, 3, 3]),  # nothing is found
        ([6], 8, [6, 6, 6, 6]),
    ],
)
def test_proposals_by_hand(ids: list[int], longest: int, expected: list[int]) -> None:
    assert proposals(ids, longest, 4) == expected


@settings(max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 8), st.integers(1, 7))
def test_proposals_are_those_of_transformers_as_far_as_it_has_some(
    ids: list[int], longest: int, count: int
) -> None:
    theirs = PromptLookupCandidateGenerator(
        num_output_tokens=count, max_matching_ngram_size=longest, max_length=100
    ).get_candidates(torch.tensor([ids]))[0][0, len(ids) :]
    assert proposals(ids, longest, count)[: len(theirs)] == theirs.tolist()


def decode(
    logits: torch.Tensor, prompt: list[int], tokens: int, seed: int, p: Params
) -> tuple[list[int], int]:
    """Decodes with a model that looks one token back, `[V, V]`; returns the tokens and how many steps."""
    values = param_values(DECODER, lookahead=3)
    state = DECODER.init(
        Env(1, VOCAB, "cpu", torch.tensor([prompt]), torch.tensor([], dtype=torch.int64), values, tokens)
    )
    text, steps = list(prompt), 0
    while len(text) < len(prompt) + tokens:
        rng = numbers(seed=seed, step=len(text) - len(prompt))
        block = [text[-1]]
        if steps:  # a run's first step reads no proposals
            block += [int(DECODER.propose(None, state, p, rng, at)) for at in range(3)]
        took = DECODER.step({"model": Output(logits[torch.tensor([block])])}, state, p, rng)
        count = int(took.accepted) + 1
        assert took.extras["drafted"][0].tolist() == [float(at < count - 1) for at in range(len(block))]
        text += took.tokens[0, :count].tolist()
        steps += 1
    return text[len(prompt) :][:tokens], steps


@pytest.mark.parametrize("temperature", [0.0, 0.4, 1.3])
def test_the_text_is_that_of_sampling_token_for_token(temperature: float) -> None:
    logits = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(2)) * 2
    p = table(DECODER, lookahead=3, temperature=temperature)
    for seed in range(3):
        prompt = [3, 1, 4, 1, 5]
        text, steps = decode(logits, prompt, 60, seed, p)
        plain = run(
            decoders.find("top_k"),
            {"model": lambda ids: logits[ids[:, -1]]},
            prompt,
            60,
            VOCAB,
            seed=seed,
            top_k=0,
            temperature=temperature,
        )
        assert text == plain.answer
        assert steps < 60  # some proposals were accepted


def test_a_chain_around_it_acts_on_every_position() -> None:
    decoder = decoders.find("ngram:top_k")
    state = decoder.init(
        Env(1, VOCAB, "cpu", torch.tensor([[1]]), torch.tensor([]), param_values(decoder), 8)
    )
    p = table(decoder, top_k=2)
    logits = torch.randn(1, 5, VOCAB, generator=torch.Generator().manual_seed(3))
    for at in range(4):
        decoder.propose(None, state, p, numbers(), at)
    assert (
        (decoder.step({"model": Output(logits)}, state, p, numbers()).final > -torch.inf).sum(-1).eq(2).all()
    )


def test_the_history_is_bounded_and_keeps_the_newest() -> None:
    length = NGram.needs.history
    prompt = torch.arange(length + 50)[None]
    env = Env(1, 2 * length, "cpu", prompt, torch.tensor([]), param_values(DECODER), 8)
    ids = DECODER.init(env)["ids"]
    assert ids.shape == (1, length)
    assert ids[0, -1] == length + 49
