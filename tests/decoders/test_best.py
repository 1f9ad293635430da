"""Compares a selection in two rounds with one in a single round."""

from __future__ import annotations

import pytest
import torch

from edge_tui.decoders.core.best import argmax, argmax_and_lead, best, in_blocks, in_shares


@pytest.mark.parametrize(("width", "count"), [(4096, 1), (5001, 8), (9000, 100), (1025, 12)])
def test_two_rounds_find_what_one_finds(width: int, count: int) -> None:
    z = torch.randn(3, width, generator=torch.Generator().manual_seed(width))
    z[1, : width // 2] = -torch.inf
    expected = z.topk(count)
    for values, ids in (in_shares(z, count), in_blocks(z, min(count, width // 128)), best(z, count)):
        assert torch.equal(values, expected.values[:, : values.shape[1]])
        assert torch.equal(ids, expected.indices[:, : ids.shape[1]])


def test_where_too_few_are_left_ids_stay_in_range() -> None:
    z = torch.full((1, 5000), -torch.inf)
    z[0, 4999] = 1.0
    for find in (in_shares, in_blocks):
        values, ids = find(z, 6)
        assert values[0, :2].tolist() == [1.0, -torch.inf]
        assert ids[0, 0] == 4999
        assert int(ids.min()) >= 0
        assert int(ids.max()) < 5000


@pytest.mark.parametrize("width", [5, 512, 1024, 5001])
def test_the_first_of_the_greatest(width: int) -> None:
    rng = torch.Generator().manual_seed(width)
    z = torch.randint(0, width // 4 + 2, (9, width), generator=rng).float()
    z[1, -1] = z.max() + 1
    z[2] = -torch.inf
    z[3, width // 2 :] = torch.nan
    wide = torch.cat((z, z), -1)[:, :width]  # rows that do not follow each other in memory
    for each in (z, wide):
        assert torch.equal(argmax(each), each.argmax(-1, keepdim=True))


@pytest.mark.parametrize("vocab", [1, 2, 300, 512, 700, 5000])
def test_the_lead_is_that_of_the_second(vocab: int) -> None:
    for seed in range(6):
        z = torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed)).round(decimals=seed % 3)
        z[1, z[1].argsort()[:-1]] = -torch.inf  # one is left
        ids, found = argmax_and_lead(z)
        assert torch.equal(ids, argmax(z))
        ordered = torch.nn.functional.pad(z, (0, 1), value=-torch.inf).sort(descending=True).values
        assert torch.equal(found, ordered[:, 0] - ordered[:, 1])
