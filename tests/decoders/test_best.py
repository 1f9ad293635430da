"""The best of many, taken in two rounds, against one."""

from __future__ import annotations

import pytest
import torch

from decoders.best import _in_shares, best


@pytest.mark.parametrize(("width", "count"), [(4096, 1), (5001, 8), (9000, 100), (1025, 12)])
def test_two_rounds_find_what_one_finds(width: int, count: int) -> None:
    z = torch.randn(3, width, generator=torch.Generator().manual_seed(width))
    z[1, : width // 2] = -torch.inf
    expected = z.topk(count)
    for values, ids in (_in_shares(z, count), best(z, count)):
        assert torch.equal(values, expected.values)
        assert torch.equal(ids, expected.indices)


def test_where_too_few_are_left_ids_stay_in_range() -> None:
    z = torch.full((1, 5000), -torch.inf)
    z[0, 4999] = 1.0
    values, ids = _in_shares(z, 6)
    assert values[0, :2].tolist() == [1.0, -torch.inf]
    assert ids[0, 0] == 4999
    assert int(ids.min()) >= 0
    assert int(ids.max()) < 5000
