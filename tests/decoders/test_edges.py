"""Compares the cut that a filter declares with the one it makes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edge_tui import decoders
from edge_tui.decoders.base import Filter, Params
from edge_tui.decoders.core.edge_reference import cut, fits
from edge_tui.decoders.registry.sampling import Sampling
from tests.decoders.driver import numbers
from tests.decoders.test_filters import rows

FILTERS = [
    decoder.filter
    for decoder in decoders.strategies()
    if isinstance(decoder, Sampling) and decoder.filter.edge
]


def values(filter: Filter) -> st.SearchStrategy[float]:
    assert filter.edge is not None
    param = next(param for param in filter.params if param.name == filter.edge.param)
    if param.integer:
        return st.integers(1, 80).map(float)
    return st.integers(1, 999).map(lambda i: i / 1000)


def test_the_filters_that_come_along_declare_their_edges() -> None:
    assert {filter.name for filter in FILTERS} >= {"top_k", "top_p", "min_p", "typical"}


@pytest.mark.parametrize("filter", FILTERS, ids=lambda filter: filter.name)
@settings(max_examples=30)
@given(z=rows(), data=st.data())
def test_a_filter_keeps_what_its_edge_says(filter: Filter, z: Tensor, data: st.DataObject) -> None:
    assert filter.edge is not None
    value = data.draw(values(filter))
    params = Params([filter.edge.param], torch.full((1, z.shape[0]), value))
    kept = filter.apply(z, params, {}, numbers(z.shape[0])) > -torch.inf
    assert fits(kept, z, filter.edge, value)


def test_the_measure_itself() -> None:
    """Worked out by hand; and what it forgives to rounding is not more than that."""
    z = torch.tensor([[0.5, 0.2, 0.2, 0.06, 0.04]]).log()
    by_name = {filter.name: filter.edge for filter in FILTERS}
    top_k, top_p, min_p, typical = (by_name[name] for name in ("top_k", "top_p", "min_p", "typical"))
    assert top_k
    assert top_p
    assert min_p
    assert typical
    assert cut(z, top_k, 2).tolist() == [[True, True, True, False, False]]  # the tie stays
    assert cut(z, top_p, 0.95).tolist() == [[True, True, True, True, False]]
    assert cut(z, min_p, 0.11).tolist() == [[True, True, True, True, False]]
    assert cut(z, typical, 0.5).tolist() == [[True, True, True, False, False]]
    for edge, value in ((top_k, 4), (top_p, 0.95), (min_p, 0.11), (typical, 0.93)):
        assert fits(cut(z, edge, value), z, edge, value)
        assert not fits(torch.ones_like(z, dtype=torch.bool), z, edge, value)
        assert not fits(cut(z, edge, value / 4), z, edge, value)
