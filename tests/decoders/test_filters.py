"""Compares filters with transformers' warpers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper, TypicalLogitsWarper

from edge_tui.decoders.base import Filter, Params
from edge_tui.decoders.core.prefix import by_radix, by_sort, sort_descending
from edge_tui.decoders.min_p import MinP
from edge_tui.decoders.top_k import TopK
from edge_tui.decoders.top_p import TopP
from edge_tui.decoders.typical import Typical
from tests.decoders.driver import numbers

EDGE = 1e-5
"""Sums of the same probabilities in another order may land on either side of a bound this close."""


@st.composite
def rows(draw: st.DrawFn) -> Tensor:
    """Logits `[R, V]` with ties and removed candidates, at least one left."""
    width = draw(st.integers(2, 60))
    scale = draw(st.sampled_from([0.1, 1.0, 3.0, 10.0]))
    grid = draw(st.sampled_from([0.0, 0.5]))
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(draw(st.integers(1, 3)), width, generator=generator) * scale
    if grid:
        z = (z / grid).round() * grid
    removed = torch.rand(z.shape, generator=generator) < draw(st.sampled_from([0.0, 0.3]))
    removed[:, 0] = False
    return z.masked_fill(removed, -torch.inf)


def apply(filter: Filter, z: Tensor, value: float) -> Tensor:
    name = filter.params[0].name
    params = Params([name], torch.full((1, z.shape[0]), value))
    before = z.clone()
    out = filter.apply(z, params, {}, numbers(z.shape[0]))
    assert torch.equal(z, before), "a stage must not write to its input"
    kept = out > -torch.inf
    assert torch.equal(out[kept], z[kept])
    assert kept.any(-1).all()
    return kept


@settings(max_examples=60)
@given(z=rows(), k=st.integers(1, 80))
def test_top_k_keeps_what_transformers_keeps(z: Tensor, k: int) -> None:
    reference = TopKLogitsWarper(k)(None, z) > -torch.inf
    assert torch.equal(apply(TopK(), z, k), reference)


@settings(max_examples=60)
@given(z=rows(), m=st.floats(0.0, 1.0, width=32))
def test_min_p_keeps_what_transformers_keeps(z: Tensor, m: float) -> None:
    reference = MinPLogitsWarper(m)(None, z) > -torch.inf
    assert torch.equal(apply(MinP(), z, m), reference)


@settings(max_examples=60)
@given(z=rows(), p=st.integers(1, 999).map(lambda i: i / 1000))
def test_top_p_keeps_what_transformers_keeps(z: Tensor, p: float) -> None:
    kept = apply(TopP(), z, p)
    reference = TopPLogitsWarper(p)(None, z) > -torch.inf
    for row in range(z.shape[0]):
        if torch.equal(kept[row], reference[row]):
            continue
        # Ties at the edge stay together here and are split by sort order there; and sums are rounded.
        edge = z[row][kept[row]].min()
        mass = z[row].softmax(-1)
        extra, missing = kept[row] & ~reference[row], reference[row] & ~kept[row]
        rounded = min(abs(float(mass[z[row] > edge].sum()) - p), abs(float(mass[z[row] >= edge].sum()) - p))
        assert rounded < EDGE or (not missing.any() and (z[row][extra] == edge).all())


@settings(max_examples=60)
@given(z=rows(), tau=st.integers(1, 999).map(lambda i: i / 1000))
def test_typical_keeps_what_transformers_keeps(z: Tensor, tau: float) -> None:
    kept = apply(Typical(), z, tau)
    reference = TypicalLogitsWarper(tau)(None, z) > -torch.inf
    logp = z.double().log_softmax(-1)
    entropy = -(logp.exp() * logp).nansum(-1, keepdim=True)
    distance = (-logp - entropy).abs()
    for row in range(z.shape[0]):
        if torch.equal(kept[row], reference[row]):
            continue
        # Two candidates as far from the entropy, one above it and one below, differ by rounding alone.
        differ = kept[row] != reference[row]
        edge = distance[row][kept[row]].max()
        mass = float(logp[row].exp()[distance[row] <= edge + EDGE].sum())
        near = (distance[row][differ] - edge).abs() < 1e-4
        assert (
            near.all()
            or abs(mass - tau) < EDGE
            or abs(mass - float(logp[row].exp()[differ].sum()) - tau) < EDGE
        )


def test_hand_computed_sets() -> None:
    z = torch.tensor([[0.5, 0.2, 0.2, 0.06, 0.04]]).log()
    assert apply(TopK(), z, 2).tolist() == [[True, True, True, False, False]]  # the tie stays
    assert apply(TopK(), z, 1).tolist() == [[True, False, False, False, False]]
    assert apply(TopP(), z, 0.45).tolist() == [[True, False, False, False, False]]
    assert apply(TopP(), z, 0.95).tolist() == [[True, True, True, True, False]]
    assert apply(MinP(), z, 0.11).tolist() == [[True, True, True, True, False]]
    # H = 1.288 nats: the 0.2s (1.609) are nearest, then 0.5 (0.693), 0.06 (2.813), 0.04 (3.219).
    assert apply(Typical(), z, 0.3).tolist() == [[False, True, True, False, False]]
    assert apply(Typical(), z, 0.5).tolist() == [[True, True, True, False, False]]


@pytest.mark.parametrize(
    ("filter", "neutral"), [(TopK(), 0), (TopK(), 1000), (TopP(), 1), (MinP(), 0), (Typical(), 1)]
)
def test_neutral_values_change_nothing(filter: Filter, neutral: float) -> None:
    z = torch.randn(2, 500, generator=torch.Generator().manual_seed(1)) * 40  # some probabilities underflow
    z[0, 3] = -torch.inf
    params = Params([filter.params[0].name], torch.full((1, 2), float(neutral)))
    assert torch.equal(filter.apply(z, params, {}, numbers(2)), z)


def test_each_row_has_its_own_value() -> None:
    z = torch.randn(1, 100, generator=torch.Generator().manual_seed(2)).expand(3, -1)
    params = Params(["top_k"], torch.tensor([[1.0, 7.0, 0.0]]))
    kept = TopK().apply(z, params, {}, numbers(3)) > -torch.inf
    assert kept.sum(-1).tolist() == [1, 7, 100]


@settings(max_examples=60)
@given(z=rows(), target=st.floats(0.0, 1.25, width=32))
def test_both_ways_to_the_cutoff_agree(z: Tensor, target: float) -> None:
    """Radix selection (CPU) and sort (accelerators) find the same edge, up to a rounded sum at the edge."""
    key, weight = z.amax(-1, keepdim=True) - z, z.softmax(-1)
    goal = torch.full((z.shape[0], 1), target)
    selected, sorted_ = by_radix(key, weight, goal), by_sort(key, weight, goal)
    for row in range(z.shape[0]):
        if selected[row] != sorted_[row]:
            low, high = sorted((float(selected[row]), float(sorted_[row])))
            mass = float(weight[row][key[row] < high].sum())
            assert math.isfinite(low)
            assert abs(mass - min(target, 1.0)) < EDGE


@settings(max_examples=30)
@given(z=rows())
def test_bit_patterns_sort_like_their_numbers(z: Tensor) -> None:
    for weight in (z.softmax(-1), (z.amax(-1, keepdim=True) - z), torch.full_like(z, 1e-44)):
        assert torch.equal(sort_descending(weight), weight.sort(-1, descending=True).values)
