"""Compares the kernels that read whole rows with the torch operations that they stand for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Env, Output, Params
from edge_tui.decoders.core import kernels, rows
from edge_tui.decoders.core.best import argmax, argmax_and_lead, best
from edge_tui.decoders.core.random import Rng, draw, draw_and_margin, key_of, lane_id, noise_of_hypotheses
from edge_tui.decoders.core.repeats import repeat_lengths
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.engine.ops.row_kernels import made_by_triton
from edge_tui.verify.driver import with_layers
from tests.decoders.driver import begin, param_values, table

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about infinities

FUNCTIONS = [
    rows.softmax,
    rows.log_softmax,
    rows.log_sum_exp,
    rows.greatest,
    rows.least,
    rows.total,
    rows.count,
    rows.entropy,
    rows.evenness,
    rows.spread,
]
WIDTHS = [5, 2_500, *(pytest.param(width, marks=pytest.mark.gpu) for width in (128_256, 151_936))]
"""One block; some and a rest of one; vocabularies of models."""
each_width = pytest.mark.parametrize("width", WIDTHS)
each_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)


@contextmanager
def with_kernels() -> Iterator[None]:
    """Lets functions use the kernels inside."""
    kernels.provide(DEVICE, made_by_triton())
    try:
        yield
    finally:
        kernels.provide(DEVICE, None)


def logits(width: int) -> Tensor:
    """Rows of every kind: plain, with ties and removed candidates, with one left, with none."""
    generator = torch.Generator().manual_seed(width)
    z = torch.randn(4, width, generator=generator) * 4
    z[1] = (z[1] / 2).round() * 2
    z[1, torch.rand(width, generator=generator) < 0.5] = -math.inf
    z[2, :-1] = -math.inf
    z[3] = -math.inf
    return z.to(DEVICE)


@each_width
@each_function
def test_kernels_compute_what_torch_does(function: Callable[[Tensor], Tensor], width: int) -> None:
    x = logits(width)
    if function in (rows.entropy, rows.total):
        x = x.softmax(-1)
    exact = function(x.double())
    with with_kernels():
        found = function(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), exact.double(), rtol=3e-6, atol=3e-6, equal_nan=True)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@each_function
def test_broken_numbers_show_as_in_torch(function: Callable[[Tensor], Tensor], broken: float) -> None:
    """In a row that has one, and in one that has nothing else; the row beside is as it was."""
    x = torch.full((3, 300), 0.25, device=DEVICE)
    x[0, 200], x[1] = broken, broken
    expected = function(x)
    with with_kernels():
        found = function(x)
    torch.testing.assert_close(found[:2].isfinite(), expected[:2].isfinite())
    torch.testing.assert_close(found[2], expected[2])


def test_rows_may_lie_anywhere() -> None:
    """Of a wider tensor, expanded from one, transposed, with axes between."""
    z = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    for view in (z[..., :5], z[:1].expand(4, -1, -1), z[0].T, z[0, 0]):
        expected = view.softmax(-1), rows.spread(view)
        with with_kernels():
            found = rows.softmax(view), rows.spread(view)
        torch.testing.assert_close(found, expected)


@each_width
def test_a_share_reaches_as_far_as_in_torch(width: int) -> None:
    """Whole numbers, whose sums are exact in any order; rows of zeros and of NaN among them."""
    generator = torch.Generator().manual_seed(width)
    weight = torch.randint(0, 9, (7, width), generator=generator).float()
    weight[4], weight[5, width // 2] = 0.0, math.nan
    weight = weight.to(DEVICE)
    share = torch.tensor([0.0, 0.25, 0.5, 0.75, 0.5, 0.5, 1.0], device=DEVICE)[:, None]
    expected = rows.reach(weight, share)
    with with_kernels():
        found = rows.reach(weight, share)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("width", "count"),
    [
        (5, 3),
        (2_500, 4),
        (4_500, 17),
        *(pytest.param(151_936, n, marks=pytest.mark.gpu) for n in (1, 16, 100)),
    ],
)
def test_the_best_are_those_of_torch(width: int, count: int) -> None:
    """Equal ones in order of their ids where kernels select; in rows with too few, ids of tokens."""
    z = logits(width)
    z[0] = torch.where(torch.arange(width, device=DEVICE) % 256 == 0, z[0].abs(), -9.0)  # one of a part
    values, ids = z.sort(dim=-1, descending=True, stable=True)
    with with_kernels():
        found, places = best(z, count)
    assert torch.equal(found, values[:, :count])
    assert torch.equal(z.gather(-1, places), found)
    left = found > -math.inf
    if width > 5:
        assert torch.equal(places[left], ids[:, :count][left])


@each_width
def test_the_best_one_and_its_lead_are_those_of_torch(width: int) -> None:
    z = logits(width)
    expected = argmax(z), *argmax_and_lead(z)
    with with_kernels():
        found = argmax(z), *argmax_and_lead(z)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("width", [5, 700])
def test_the_best_of_broken_numbers_is_a_token(broken: float, width: int) -> None:
    """Whatever the numbers are, the next forward looks the id up in the embeddings."""
    z = torch.full((3, width), broken, device=DEVICE)
    z[1, 0], z[2, width // 2 :] = 1.0, 2.0
    rng = Rng(torch.tensor([1, 3, 5], device=DEVICE), torch.zeros(1, dtype=torch.int64, device=DEVICE))
    with with_kernels():
        found = (argmax(z), argmax_and_lead(z)[0], best(z, 3)[1], draw(z, rng)[:, None])
    for ids in found:
        assert int(ids.min()) >= 0
        assert int(ids.max()) < width
    if broken != math.inf:
        assert found[0].tolist()[1:] == [[0], [width // 2]]


def random_numbers(rows: int) -> Rng:
    """Rows of several keys and steps, high ones among them."""
    key = torch.tensor([key_of(seed) for seed in range(rows)], device=DEVICE)
    step = torch.arange(rows, device=DEVICE) * 123_457
    return Rng(key, step)


@pytest.mark.parametrize("count", [7, pytest.param(151_936, marks=pytest.mark.gpu)])
def test_random_numbers_are_the_same_to_the_last_bit(count: int) -> None:
    ids = torch.arange(count, device=DEVICE) * 883
    ids[-1] = lane_id(3, "top_p")
    three, one = random_numbers(3), random_numbers(2).shift(5)
    one = Rng(one.key[1:], one.step[1:])
    for rng, number in ((three, 3), (three.redraw(), 3), (Rng(three.key, ids[:1] + 9), 1), (one, 3)):
        many = ids.expand(number, -1)
        expected = rng.bits(many), rng.uniform(many), rng.gumbel(many), rng.lane(5)
        with with_kernels():
            found = rng.bits(many), rng.uniform(many), rng.gumbel(many), rng.lane(5)
        for a, b in zip(found[:2] + found[3:], expected[:2] + expected[3:], strict=True):
            assert torch.equal(a, b)
        torch.testing.assert_close(found[2], expected[2], rtol=2e-6, atol=2e-6)  # but for two logarithms


@each_width
def test_draws_are_those_of_torch(width: int) -> None:
    z, rng = logits(width)[:3] / 4, random_numbers(3)
    rng = Rng(rng.key, rng.step[1:2])
    expected = draw_and_margin(z, rng)
    with with_kernels():
        found = draw_and_margin(z, rng)
    assert torch.equal(found[0], expected[0])
    assert not torch.equal(found[0], argmax(z)[:, 0])
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-5)


def test_noise_of_hypotheses_is_that_of_torch() -> None:
    z, rng = logits(40)[:3], random_numbers(3)
    expected = noise_of_hypotheses(z, rng)
    with with_kernels():
        found = noise_of_hypotheses(z, rng)
    left = z > -math.inf
    torch.testing.assert_close(found[left], expected[left], rtol=2e-6, atol=2e-6)


def test_a_trace_holds_torch_operations_alone() -> None:
    z = logits(40)[:2]
    with with_kernels():
        traced = torch.jit.trace(rows.softmax, (z,))
    other = z.flip(-1) * 2
    assert torch.equal(traced(other), other.softmax(-1))


@pytest.mark.parametrize(
    "name",
    ["eta", "top_n_sigma", "tfs", "top_h", "dola"]
    + [
        pytest.param(e.name, marks=pytest.mark.proof)
        for e in decoders.strategies()
        if isinstance(e, Sampling)
    ],
)
def test_strategies_decide_by_kernels_what_they_decide_by_torch(name: str) -> None:
    decoder, vocab = decoders.find(name), 40
    z = (torch.randn(3, 1, vocab, generator=torch.Generator().manual_seed(4)) * 3).to(DEVICE)
    prompt = torch.tensor([[1, 2, 3]], device=DEVICE).expand(3, -1)
    end = torch.tensor([7], device=DEVICE)
    env = Env(3, vocab, DEVICE, prompt, end, param_values(decoder, temperature=1.5), 9)
    params = table(decoder, 3, temperature=1.5)
    params = Params(list(params), params.table.to(DEVICE))
    outs = {decoder.streams[0].name: with_layers(decoder, env.values, Output(z))}
    steps = []
    for given in (nullcontext(), with_kernels()):
        with given:
            steps.append(decoder.step(outs, begin(decoder, env), params, random_numbers(3)))
    plain, found = steps
    assert torch.equal(found.chosen, plain.chosen)
    torch.testing.assert_close(found.final, plain.final, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("width", "most"), [(1, 3), (7, 20), (70, 5), (70, 50)])
def test_repetitions_are_as_long_as_in_torch(width: int, most: int) -> None:
    """Rows of few ids, of one alone, of what equals nothing, and one that begins within a wider tensor."""
    generator = torch.Generator().manual_seed(width)
    ids = torch.randint(-1, 2, (4, width + 2), generator=generator)
    ids[1], ids[2] = 1, -1
    ids = ids.to(DEVICE)[:, 2:]
    expected = repeat_lengths(ids, most)
    with with_kernels():
        found = repeat_lengths(ids, most)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert width == 1 or len(expected.unique()) > 2
