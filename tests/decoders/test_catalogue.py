"""Compares the filters beyond the digit keys with their references, each worked out in double precision."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from transformers import EpsilonLogitsWarper, EtaLogitsWarper, LogitsProcessor, TopHLogitsWarper

from edge_tui import decoders
from edge_tui.decoders.base import Env, Filter, Output, Params
from edge_tui.decoders.core.random import Rng
from edge_tui.decoders.dynamic_temperature import DynamicTemperature
from edge_tui.decoders.epsilon import Epsilon
from edge_tui.decoders.eta import Eta
from edge_tui.decoders.p_less import PLess
from edge_tui.decoders.quadratic import Quadratic
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.decoders.tfs import TailFree
from edge_tui.decoders.top_a import TopA
from edge_tui.decoders.top_h import TopH
from edge_tui.decoders.top_n_sigma import TopNSigma
from edge_tui.decoders.xtc import Xtc
from tests.decoders.driver import numbers, param_values, table
from tests.decoders.test_filters import rows
from tests.decoders.test_sampling import chi_squared, limit, many_steps

ALL = (TopNSigma, TopH, TopA, Epsilon, Eta, PLess, TailFree, DynamicTemperature, Quadratic, Xtc)
CUTS = ((TopNSigma, 1), (TopH, 1), (TopA, -1), (Epsilon, -1), (Eta, -1), (TailFree, 1))
"""Filters with one parameter, and whether more of it keeps more (1) or less (−1)."""
SLACK = 1e-4
"""Share by which rounding in float32 may move a bound, or a sum that reaches one."""
Row = NDArray[np.float64]


def apply(filter: Filter, z: Tensor, *values: float, rng: Rng | None = None) -> Tensor:
    """Applies a filter with these values of its parameters; the first ones, the others at their defaults."""
    given = [*values, *(param.default for param in filter.params[len(values) :])]
    params = Params(
        [param.name for param in filter.params], torch.tensor(given)[:, None].repeat(1, z.shape[0])
    )
    before = z.clone()
    out = filter.apply(z, params, {}, rng or numbers(z.shape[0]))
    assert torch.equal(z, before), "a stage must not write to its input"
    assert out.dtype == torch.float32
    return out


def cut(filter: Filter, z: Tensor, *values: float, rng: Rng | None = None) -> Tensor:
    """Applies a filter that removes and changes nothing else; returns what stays, bool `[R, V]`."""
    out = apply(filter, z, *values, rng=rng)
    kept = out > -torch.inf
    assert torch.equal(out[kept], z[kept])
    assert kept.any(-1).all()
    return kept


def distributions() -> Iterator[Tensor]:
    """Yields logits `[1, V]`, from flat to sure, with ties and with removed candidates."""
    generator = torch.Generator().manual_seed(17)
    shapes = itertools.product((0.3, 4.0), (0.0, 0.5), (0.0, 0.4))
    small = itertools.product((2, 3, 40, 101, 600), shapes)
    large = (
        (600, (12.0, 0.0, 0.0)),
        (32_000, (1.0, 0.0, 0.0)),
        (32_000, (4.0, 0.5, 0.4)),
        (5000, (2.0, 0.0, 0.4)),
    )
    for width, (scale, grid, removed) in (*small, *large):
        z = torch.randn(1, width, generator=generator) * scale
        z = (z / grid).round() * grid if grid else z
        gone = torch.rand(z.shape, generator=generator) < removed
        gone[:, width // 2] = False
        yield z.masked_fill(gone, -torch.inf)


CASES = tuple(distributions())


def softmax(z: Tensor) -> Row:
    exact = z[0].numpy().astype(np.float64)
    weights = np.exp(exact - exact.max())
    return weights / weights.sum()


def entropy(p: Row) -> float:
    some = p[p > 0]
    return float(-(some * np.log(some)).sum())


def check_bound(kept: Tensor, key: Row, bound: float, slack: float) -> None:
    """Checks that what lies above a bound stays and what lies below goes; rounding decides between."""
    assert kept[0].numpy()[key > bound + slack].all()
    assert not kept[0].numpy()[key < bound - slack].any()


# Bounds on a probability or a logit


BOUNDS: dict[type[Filter], tuple[tuple[float, ...], Callable[[Row, float], float]]] = {
    TopA: ((0.01, 0.2, 0.6, 1.0), lambda p, a: a * p.max() ** 2),
    Epsilon: ((1e-5, 9e-4, 0.05, 1.0), lambda p, e: min(e, p.max())),
    Eta: ((1e-5, 2e-3, 0.1, 1.0), lambda p, e: min(e, math.sqrt(e) * math.exp(-entropy(p)), p.max())),
    PLess: ((0.0,), lambda p, _: (p**2).sum()),
}


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_bound_on_the_probability_is_the_closed_form(kind: type[Filter]) -> None:
    values, bound_of = BOUNDS[kind]
    for z, value in itertools.product(CASES, values):
        p = softmax(z)
        bound = bound_of(p, value)
        check_bound(cut(kind(), z, *([value] if kind().params else [])), p, bound, SLACK * bound)


@pytest.mark.parametrize("n", [0.05, 1.0, 2.5, 10.0])
def test_top_n_sigma_is_llama_cpps_loop(n: float) -> None:
    for z in CASES:
        valid = z[0].double().numpy()[z[0] > -torch.inf]
        sigma = math.sqrt(((valid - valid.sum() / len(valid)) ** 2).sum() / len(valid))
        bound = valid.max() - n * sigma
        check_bound(cut(TopNSigma(), z, n), z[0].double().numpy(), bound, SLACK * (1 + n * sigma))


def test_top_n_sigma_keeps_the_same_set_at_every_temperature() -> None:
    for z in CASES:
        kept = cut(TopNSigma(), z, 1.0)
        for factor in (0.25, 2.0):  # exact in binary
            assert torch.equal(cut(TopNSigma(), z * factor, 1.0), kept)


# transformers' own classes


@pytest.mark.parametrize(
    ("kind", "warper", "values"),
    [
        (Epsilon, EpsilonLogitsWarper, (1e-5, 9e-4, 0.05, 0.999)),
        (Eta, EtaLogitsWarper, (1e-5, 2e-3, 0.1, 0.999)),
        (TopH, TopHLogitsWarper, (0.05, 0.4, 0.8, 0.999)),
    ],
)
def test_kept_is_what_transformers_keeps(
    kind: type[Filter], warper: Callable[[float], LogitsProcessor], values: tuple[float, ...]
) -> None:
    for z, value in itertools.product(CASES, values):
        kept, reference = cut(kind(), z, value)[0], (warper(value)(None, z) > -torch.inf)[0]
        if torch.equal(kept, reference):
            continue
        p = z[0].double().softmax(-1)
        if kind is TopH:
            check_top_h(z[0], kept, reference, value)
        else:  # the bound is known to the last digits of float32 only
            differ = p[kept != reference]
            assert float(differ.max() - differ.min()) < SLACK * float(differ.max())


def check_top_h(z: Tensor, kept: Tensor, reference: Tensor, h: float) -> None:
    """Explains a difference: ties at the edge stay together, or rounding moves the sum at the edge."""
    edge = z[kept].min()
    extra, missing = kept & ~reference, reference & ~kept
    top = z.double().topk(min(100, len(z))).values.softmax(-1)
    terms = torch.special.entr(top)
    at = (terms.cumsum(-1) / terms.sum() - h).abs().min()
    ties = not missing.any() and (z[extra] == edge).all()
    # transformers takes log p from logits less their logsumexp, which keeps six digits of log p + max z.
    assert ties or at < SLACK + 1e-5 / terms.sum()


# Sorted prefixes


def check_prefix(kept: Tensor, p: Row, sums: Row, share: float, first: int, slack: float) -> None:
    """Checks that as many of the likeliest tokens stay as sums stay within a share, `first` without any.

    Tokens that tie with the last one stay with it; rounding decides at sums as near to the share as `slack`.
    """
    falling = np.sort(p)[::-1]
    least, most = (falling[max(first + int((sums <= share + s).sum()), 1) - 1] for s in (-slack, slack))
    assert kept[0].numpy()[p >= least].all()
    assert not kept[0].numpy()[p < most * (1 - SLACK)].any()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_tail_free_is_the_rule_of_second_differences(share: float) -> None:
    for z in CASES:
        p = softmax(z)
        bends = np.abs(np.diff(np.sort(p)[::-1], 2))
        sums = bends.cumsum() / max(bends.sum(), 1e-30)
        if not bends.sum() or bends.sum() > 1e-6:  # what bends less is rounding
            check_prefix(cut(TailFree(), z, share), p, sums, share, 1, SLACK)


@pytest.mark.parametrize("h", [0.05, 0.4, 0.8, 0.999])
def test_top_h_is_the_rule_of_summed_terms(h: float) -> None:
    for z in CASES:
        p = softmax(z)
        top = np.sort(p)[::-1][:100] / np.sort(p)[::-1][:100].sum()
        terms = np.where(top > 0, -top * np.log(np.maximum(top, 1e-300)), 0.0)
        total = max(terms.sum(), 1e-30)
        check_prefix(cut(TopH(), z, h), p, terms.cumsum() / total, h, 0, SLACK + 2e-7 / total)


def test_hand_computed_sets() -> None:
    z = torch.tensor([[0.5, 0.2, 0.2, 0.06, 0.04]]).log()
    # Second differences 0.3, 0.14, 0.12; their sums are 0.536, 0.786 and 1 of 0.56.
    assert cut(TailFree(), z, 0.5).tolist() == [[True, False, False, False, False]]
    assert cut(TailFree(), z, 0.6).tolist() == [[True, True, True, False, False]]
    assert cut(TailFree(), z, 0.99).tolist() == [[True, True, True, False, False]]
    # Terms 0.347, 0.322, 0.322, 0.169, 0.129 of H = 1.288; the sum of two is 0.52 H.
    assert cut(TopH(), z, 0.2).tolist() == [[True, False, False, False, False]]
    assert cut(TopH(), z, 0.55).tolist() == [[True, True, True, False, False]]  # the tie stays
    assert cut(TopH(), z, 0.95).tolist() == [[True, True, True, True, False]]
    assert cut(TopA(), z, 0.2).tolist() == [[True, True, True, True, False]]  # 0.2 · 0.25 = 0.05
    assert cut(PLess(), z).tolist() == [[True, False, False, False, False]]  # Σp² = 0.335
    assert cut(Epsilon(), z, 0.05).tolist() == [[True, True, True, True, False]]
    assert cut(Epsilon(), z, 0.9).tolist() == [[True, False, False, False, False]]
    assert cut(Eta(), z, 0.16).tolist() == [[True, True, True, False, False]]  # 0.4 · e^−1.288 = 0.110
    n = torch.tensor([[4.0, 0.0, 0.0, 0.0, 0.0]])  # σ = 1.6
    assert cut(TopNSigma(), n, 2.4).tolist() == [[True, False, False, False, False]]
    assert cut(TopNSigma(), n, 2.6).all()


# Shapes


@pytest.mark.parametrize("k", [0.05, 0.3, 3.0])
def test_quadratic_is_the_closed_form(k: float) -> None:
    for z in CASES:
        exact = z[0].double().numpy()
        expected = exact.max() - k * (exact - exact.max()) ** 2
        np.testing.assert_allclose(apply(Quadratic(), z, k)[0].numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("low", "high", "exponent"), [(0.5, 1.5, 1.0), (0.1, 3.0, 2.5), (2.0, 0.3, 0.5)])
def test_dynamic_temperature_is_llama_cpps(low: float, high: float, exponent: float) -> None:
    for z in CASES:
        p, count = softmax(z), int((z > -torch.inf).sum())
        doubt = entropy(p) / math.log(count) if count > 1 else 0.0
        expected = z[0].double().numpy() / (low + (high - low) * doubt**exponent)
        found = apply(DynamicTemperature(), z, low, high, exponent)[0].numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_dynamic_temperature_of_a_flat_and_of_a_sure_model_is_an_end_of_the_range() -> None:
    flat, sure = torch.zeros(1, 50), torch.tensor([[90.0, 0.0, -90.0]])
    torch.testing.assert_close(apply(DynamicTemperature(), flat + 3, 0.5, 1.5), flat + 2)
    torch.testing.assert_close(apply(DynamicTemperature(), sure, 0.5, 1.5), sure * 2)
    assert (apply(DynamicTemperature(), sure, 0.0, 1.5) > -torch.inf).tolist() == [[True, False, False]]


# XTC


def without_top(p: Row, threshold: float) -> NDArray[np.bool_]:
    """Marks what XTC keeps when it acts."""
    likely = p[p >= threshold]
    return p <= likely.min() if len(likely) > 1 else np.ones(len(p), dtype=bool)


@pytest.mark.parametrize("threshold", [1e-4, 0.1, 0.6])
def test_xtc_drops_all_likely_tokens_but_the_least(threshold: float) -> None:
    for z in CASES:
        p, left = softmax(z), (z > -torch.inf)[0].numpy()
        if (np.abs(p - threshold) < SLACK * threshold).any():
            continue
        exact = z[0].double().numpy()
        likely = exact[p >= threshold]
        expected = exact <= (likely.min() if len(likely) > 1 else math.inf)
        assert np.array_equal(cut(Xtc(), z, 1.0, threshold)[0].numpy(), expected & left)
        assert np.array_equal(cut(Xtc(), z, 0.0, threshold)[0].numpy(), left)


def test_xtc_acts_as_often_as_it_is_told_and_alike_for_a_whole_row() -> None:
    steps = 4000
    z = torch.tensor([[2.0, 1.5, 1.4, -1.0]]).expand(steps, -1)
    kept = cut(Xtc(), z, 0.3, 0.1, rng=many_steps(steps))
    acts = ~kept[:, 0]
    assert torch.equal(kept, torch.stack((~acts, ~acts, *torch.ones(2, steps, dtype=torch.bool)), -1))
    observed = torch.stack((acts.sum(), (~acts).sum()))
    assert chi_squared(observed, torch.tensor([0.3, 0.7]) * steps) < limit(1)


@pytest.mark.parametrize("probability", [0.5, pytest.param(0.85, marks=pytest.mark.proof)])
def test_draws_of_xtc_follow_the_mean_of_both_outcomes(probability: float) -> None:
    n, decoder = 100_000, decoders.find("xtc")
    z = torch.tensor([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -1.5])
    env = Env(n, 8, "cpu", torch.zeros(n, 1, dtype=torch.int64), torch.tensor([]), param_values(decoder), 9)
    values = table(decoder, n, xtc_probability=probability, xtc_threshold=0.08)
    step = decoder.step({"model": Output(z.expand(n, 1, 8))}, decoder.init(env), values, numbers(n))
    p = softmax(z[None])
    rest = np.where(without_top(p, 0.08), p, 0.0)
    expected = torch.from_numpy(probability * rest / rest.sum() + (1 - probability) * p) * n
    assert chi_squared(torch.bincount(step.chosen, minlength=8), expected) < limit(7)


# Properties of all


def test_all_are_strategies_found_by_name() -> None:
    found = [decoder.filter for decoder in decoders.strategies() if isinstance(decoder, Sampling)]
    assert {type(filter) for filter in found} >= set(ALL)


@pytest.mark.parametrize(("kind", "sign"), CUTS)
@settings(max_examples=25)
@given(z=rows(), low=st.floats(0.01, 1.0), high=st.floats(0.01, 1.0))
def test_what_stays_grows_or_shrinks_with_the_parameter(
    kind: type[Filter], sign: int, z: Tensor, low: float, high: float
) -> None:
    less, more = (cut(kind(), z, value) for value in sorted((low, high), reverse=sign < 0))
    assert (more | ~less).all()


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not Xtc])
@settings(max_examples=25)
@given(z=rows())
def test_a_likelier_token_stays_likelier_and_ties_stay_ties(kind: type[Filter], z: Tensor) -> None:
    out = apply(kind(), z, *([0.3] if kind is Quadratic else []))
    for before, after in zip(z, out, strict=True):
        order = before.argsort()
        steps = after[order].nan_to_num(neginf=-1e30).diff()
        assert (steps >= 0).all()
        assert (steps[before[order].nan_to_num(neginf=-1e30).diff() == 0] == 0).all()


@settings(max_examples=25)
@given(z=rows(), value=st.floats(1e-4, 1.0))
def test_epsilon_twice_is_epsilon_once(z: Tensor, value: float) -> None:
    """Alone among them: what stays grows when the rest is gone, and the bound does not."""
    once = apply(Epsilon(), z, value)
    assert torch.equal(apply(Epsilon(), once, value), once)


@pytest.mark.parametrize("kind", ALL)
def test_a_row_does_not_depend_on_its_neighbours(kind: type[Filter]) -> None:
    z = torch.randn(3, 300, generator=torch.Generator().manual_seed(3)) * torch.tensor([[0.1], [2.0], [9.0]])
    together = apply(kind(), z)
    rng = numbers(3)
    for row in range(3):
        own = Rng(rng.key[row : row + 1], rng.step)
        torch.testing.assert_close(apply(kind(), z[row : row + 1], rng=own)[0], together[row])


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind.params])
def test_neutral_values_keep_every_bit(kind: type[Filter]) -> None:
    neutral = [param.default if param.neutral is None else param.neutral for param in kind.params]
    z = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)) * 30  # some probabilities underflow
    z[0, 7] = -torch.inf
    for logits in (z, *CASES):
        assert torch.equal(apply(kind(), logits, *neutral), logits)


def test_xtc_is_neutral_at_either_of_its_neutral_values() -> None:
    for z in CASES:
        assert torch.equal(apply(Xtc(), z, 0.0, 0.1), z)
        assert torch.equal(apply(Xtc(), z, 1.0, 1.0), z)


EXTREMES = [
    [0.0, 0.0],
    [0.0, -math.inf],
    [1e30, -1e30],
    [5.0, 5.0, 5.0, 5.0],
    [-math.inf, -7.0, -math.inf, -math.inf],
    [1e4, 0.0, -1e4, -math.inf],
    [-1e30, -1e30, -1e30, -2e30],
    [1e-40, 0.0, -1e-40, 1e-45],
    [*([0.0] * 150), 1e-7],
]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("logits", EXTREMES, ids=range(len(EXTREMES)))
def test_extremes_leave_a_candidate_and_give_no_nan(kind: type[Filter], logits: list[float]) -> None:
    z = torch.tensor([logits])
    ends = [
        (math.nextafter(q.low, 1) if q.low_open else q.low, 1e-6 + q.low, q.default, q.high)
        for q in kind.params
    ]
    for values in itertools.product(*ends):
        out = apply(kind(), z, *values)
        assert (out < torch.inf).all(), values  # NaN compares false
        assert (out > -torch.inf).any()
        assert (out[z == -torch.inf] == -torch.inf).all()


@pytest.mark.parametrize("kind", ALL)
def test_a_row_that_is_empty_stays_empty(kind: type[Filter]) -> None:
    """The chain then puts the likeliest token back, which NaN would keep it from."""
    assert (apply(kind(), torch.full((2, 9), -torch.inf)) == -torch.inf).all()
