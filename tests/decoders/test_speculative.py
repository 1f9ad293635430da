"""Checks that speculative decoding draws from the target's distribution, whatever the draft says."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params, Step
from edge_tui.decoders.speculative import Speculative
from tests.decoders.driver import numbers, table
from tests.decoders.test_sampling import chi_squared, limit

VOCAB, LOOKAHEAD = 6, 2
DECODER = decoders.find("speculative")


def _logits(seed: int) -> torch.Tensor:
    """Makes the logits of a model that looks one token back, `[V, V]`."""
    return torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed)) * 1.5


def _block(target: torch.Tensor, draft: torch.Tensor, p: Params, last: torch.Tensor, seed: int) -> Step:
    """Does one step by hand: the draft proposes after `last` int64 `[R]`, the target checks."""
    rows = len(last)
    rng = numbers(rows, seed, 5)
    values = {"lookahead": float(LOOKAHEAD)}
    env = Env(rows, VOCAB, "cpu", last[:, None], torch.tensor([], dtype=torch.int64), values, 8)
    state = DECODER.init(env)
    tokens = [last]
    for at in range(LOOKAHEAD):
        tokens.append(DECODER.propose(Output(draft[tokens[-1]][:, None]), state, p, rng, at))
    return DECODER.step({"model": Output(target[torch.stack(tokens, 1)])}, state, p, rng)


def test_the_targets_distribution_comes_out_whatever_the_draft_says() -> None:
    """Pairs of tokens after a fixed one, against the product of the target's own probabilities."""
    rows, rounds = 2048, 10
    target, draft = _logits(1), _logits(2)
    p = table(DECODER, rows, lookahead=LOOKAHEAD, temperature=0.8)
    seen = torch.zeros(VOCAB, VOCAB)
    for seed in range(0, 2 * rows * rounds, 2 * rows):  # each row has a seed of its own
        first = _block(target, draft, p, torch.zeros(rows, dtype=torch.int64), seed)
        again = _block(target, draft, p, first.tokens[:, 0], seed + rows)
        second = torch.where(first.accepted > 0, first.tokens[:, 1], again.tokens[:, 0])
        seen.view(-1).index_add_(0, first.tokens[:, 0] * VOCAB + second, torch.ones(rows))
    probabilities = (target / 0.8).softmax(-1)
    expected = probabilities[0][:, None] * probabilities * rows * rounds
    usual = expected > 5
    assert chi_squared(seen[usual], expected[usual]) < limit(int(usual.sum()) - 1)


def test_a_draft_that_agrees_is_always_believed() -> None:
    target = _logits(3)
    step = _block(target, target, table(DECODER, 64, lookahead=LOOKAHEAD), torch.arange(64) % VOCAB, 7)
    assert step.accepted.tolist() == [LOOKAHEAD] * 64
    assert (step.extras["rejected"] == -1).all()
    assert step.extras["drafted"][0].tolist() == [1, 1, 0]


def test_at_temperature_zero_it_is_greedy_whatever_is_proposed() -> None:
    target, draft = _logits(4), _logits(5)
    values = table(DECODER, VOCAB, lookahead=LOOKAHEAD, temperature=0)
    step = _block(target, draft, values, torch.arange(VOCAB), 1)
    last = torch.arange(VOCAB)
    for position in range(LOOKAHEAD + 1):
        valid = position <= step.accepted
        assert (step.tokens[:, position] == target[last].argmax(-1))[valid].all()
        last = step.tokens[:, position].clamp_min(0)
    corrected = step.accepted < LOOKAHEAD
    assert corrected.any()
    at = step.accepted[corrected, None]
    rejected = step.extras["rejected"][corrected].gather(1, at)
    assert (rejected >= 0).all()
    assert (rejected != step.tokens[corrected].gather(1, at)).all()


def test_lookahead_is_the_old_name_of_num_draft_tokens() -> None:
    class Old(Speculative):
        def lookahead(self, values: Mapping[str, float]) -> int:
            return super().lookahead(values) + 1

    class New(Old):
        def num_draft_tokens(self, values: Mapping[str, float]) -> int:
            return self.lookahead({}) if values else 9

    old, new = Old(), New()
    assert old.num_draft_tokens({"lookahead": 2}) == old.lookahead({"lookahead": 2}) == 3
    assert new.num_draft_tokens({"lookahead": 2}) == new.lookahead({}) == 9
    assert decoders.find("greedy").lookahead({}) == 0
