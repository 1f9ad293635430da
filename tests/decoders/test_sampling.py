"""Draws follow their distribution; random numbers are a function of seed, step and token."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output
from edge_tui.decoders.core.random import LANES, MOST_TOKENS, REDRAW, TOKEN_BITS, Rng, draw, key_of, lane_id
from tests.decoders.driver import begin, numbers, param_values, run, table

Z = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5])


def chi_squared(observed: Tensor, expected: Tensor) -> float:
    return float(((observed - expected) ** 2 / expected).sum())


def limit(freedom: int) -> float:
    """Computes the bound that χ² exceeds once in 10⁵ (Wilson–Hilferty), under fixed seeds."""
    return freedom * (1 - 2 / (9 * freedom) + 4.265 * (2 / (9 * freedom)) ** 0.5) ** 3


def many_steps(steps: int) -> Rng:
    """The first steps of one run, each as a row."""
    return Rng(torch.full((steps,), key_of(0)), torch.arange(steps))


@pytest.mark.parametrize(
    ("strategy", "values"),
    [
        ("top_k", {"top_k": 5}),
        ("top_k", {"top_k": 0, "temperature": 1.7}),
        ("top_p", {"top_p": 0.8, "temperature": 0.7}),
        ("min_p", {"min_p": 0.2}),
        ("typical", {"typical_p": 0.6}),
        ("auto", {"do_sample": "on", "top_p": 0.9}),
        ("contrastive", {"sample": "on", "alpha": 0.02}),
    ],
)
def test_draws_follow_the_final_distribution(strategy: str, values: dict[str, object]) -> None:
    n, decoder = 20_000, decoders.find(strategy)
    env = Env(n, 8, "cpu", torch.zeros(n, 1, dtype=torch.int64), torch.tensor([]), param_values(decoder), 9)
    out = {
        s.name: Output((Z if i == 0 else Z.flip(0) / 3).expand(n, 1, 8))
        for i, s in enumerate(decoder.streams)
    }
    step = decoder.step(out, begin(decoder, env), table(decoder, n, **values), numbers(n))
    expected = step.final[0].softmax(-1)
    observed = torch.bincount(step.chosen, minlength=8)
    assert (observed[expected == 0] == 0).all()
    kept = expected > 0
    assert kept.sum() > 1
    assert chi_squared(observed[kept], n * expected[kept]) < limit(int(kept.sum()) - 1)


def test_steps_and_rows_of_one_seed_are_independent_draws() -> None:
    n = 20_000
    by_step = draw(Z.expand(4000, -1), many_steps(4000))
    by_row = draw(Z.expand(200, -1), numbers(200))
    for drawn in (by_step, by_row):
        observed = torch.bincount(drawn, minlength=8)
        assert chi_squared(observed, len(drawn) * Z.softmax(-1)) < limit(7)
    a, b = draw(Z.expand(n, -1), numbers(n, step=0)), draw(Z.expand(n, -1), numbers(n, step=1))
    pairs = torch.bincount(a * 8 + b, minlength=64)
    joint = (Z.softmax(-1)[:, None] * Z.softmax(-1)).flatten() * n
    assert chi_squared(pairs[joint > 5], joint[joint > 5]) < limit(int((joint > 5).sum()) - 1)


def test_numbers_are_uniform_along_every_axis() -> None:
    ids = torch.arange(40_000)[None]
    along_ids = numbers().uniform(ids)[0]
    along_steps = many_steps(4000).uniform(torch.zeros(4000, 1, dtype=torch.int64))[:, 0]
    along_seeds = numbers(20_000).uniform(torch.zeros(20_000, 1, dtype=torch.int64))[:, 0]
    for u in (along_ids, along_steps, along_seeds):
        assert u.min() > 0
        assert u.max() < 1
        observed = torch.histc(u, 50, 0, 1)
        assert chi_squared(observed, torch.full((50,), len(u) / 50)) < limit(49)
        serial = torch.corrcoef(torch.stack((u[:-1], u[1:])))[0, 1]
        assert abs(serial) < 4.5 / len(u) ** 0.5


def test_a_number_depends_on_seed_step_and_token_alone() -> None:
    ids = torch.arange(50)[None]
    base = numbers(seed=3, step=5).uniform(ids)
    assert torch.equal(base, numbers(seed=3, step=5).uniform(ids))
    assert torch.equal(base[0, 7:8], numbers(seed=3, step=5).uniform(torch.tensor([[7]]))[0])
    for other in (numbers(seed=4, step=5), numbers(seed=3, step=6)):
        assert not torch.isclose(base, other.uniform(ids)).any()
    shifted = numbers(seed=3).shift(5)
    assert torch.equal(base, shifted.uniform(ids))
    many = numbers(rows=3, seed=1, step=5)
    assert torch.equal(many.uniform(ids.expand(3, -1))[2], base[0])
    assert torch.equal(many.uniform(ids[0], torch.full((50,), 2)), base[0])


def test_the_numbers_of_a_seed_never_change() -> None:
    """A stored run goes on with the numbers that it began with."""
    ids, rng = torch.tensor([[0, 1, 151_935]]), numbers(seed=7, step=12)
    assert rng.bits(ids).tolist() == [[3056857738, 1953151359, 4273910432]]
    assert rng.lane(0).tolist() == [0.8148035407066345]
    assert rng.redraw().bits(ids).tolist() == [[1582532416, 2991240216, 1463437441]]
    assert lane_id(0, "xtc") == 79089327


def test_each_link_has_lanes_of_its_own_and_the_same_tokens() -> None:
    rng, ids = numbers(rows=2, seed=3, step=5), torch.arange(50).expand(2, -1)
    links = [rng, *(rng.link(name) for name in ("xtc", "xtc#2", "mirostat"))]
    lanes = torch.stack([link.lane(number) for link in links for number in range(3)])
    assert lanes.unique().numel() == lanes.numel()
    for link in links[1:]:
        assert torch.equal(link.uniform(ids), rng.uniform(ids))
        assert torch.equal(link.lane(1), rng.link(link.name).lane(1)), "wherever it stands"
        assert torch.equal(link.shift(2).lane(0), rng.shift(2).link(link.name).lane(0))
        assert not torch.isclose(link.shift(2).lane(0), link.lane(0)).any()
        assert not torch.isclose(link.redraw().lane(0), link.lane(0)).any()


def test_ids_of_lanes_lie_beyond_tokens_and_apart() -> None:
    """Of all strategies and stages that there are, three times each in a chain."""
    names = [strategy.name for strategy in decoders.strategies()] + ["penalties", "temperature"]
    links = ["", *(f"{name}{again}" for name in names for again in ("", "#2", "#3"))]
    ids = [lane_id(number, link) for link in links for number in range(LANES)]
    assert len(set(ids)) == len(ids)
    assert min(ids) == MOST_TOKENS
    assert max(ids) < REDRAW
    for number in (-1, LANES):
        with pytest.raises(ValueError, match=f"Lane {number} "):
            numbers().lane(number)


def test_a_redraw_has_other_numbers() -> None:
    ids = torch.arange(2000)[None]
    first, other = numbers(seed=3).uniform(ids)[0], numbers(seed=3).redraw().uniform(ids)[0]
    assert torch.cat((first, other)).unique().numel() > 3990
    assert abs(torch.corrcoef(torch.stack((first, other)))[0, 1]) < 4.5 / 2000**0.5


def test_no_two_places_share_their_numbers() -> None:
    """Seed 4 at step 0 is not seed 3 at step 1, nor is any token or hypothesis another's neighbour."""
    ids = (torch.arange(3)[:, None] * (1 << TOKEN_BITS) + torch.arange(8)).view(1, -1).expand(16, -1)
    bits = torch.cat([numbers(16, seed=3, step=step).bits(ids) for step in range(16)])
    assert bits.unique().numel() == bits.numel()


def test_noise_for_kept_candidates_alone_gives_the_same_draw() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(64, 3000, generator=generator) * 3
    few = z.masked_fill(z < z.topk(40).values[:, -1:], -torch.inf)
    rng = numbers(64, seed=9)
    full = (few + rng.gumbel(torch.arange(3000).expand(64, -1))).argmax(-1)
    assert torch.equal(draw(few, rng), full)


def test_one_seed_is_one_text_and_another_seed_another() -> None:
    def flat(ids: Tensor) -> Tensor:
        return Z.repeat(ids.shape[0], 6)

    texts = [
        run(decoders.find("top_k"), {"model": flat}, [1], 30, 48, seed=seed).answer for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
