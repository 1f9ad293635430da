"""What is added to scores: alibi as Falcon's class computes it, and what a query may not see."""

from __future__ import annotations

import math

import pytest
import torch

from edge_tui.engine.models.masks import Masks, alibi_slopes


@pytest.mark.parametrize("heads", [1, 4, 6, 32, 71])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_alibi_is_that_of_falcons_class(heads: int, dtype: torch.dtype) -> None:
    """Beyond position 256 too, where its product in bfloat16 rounds."""
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor

    span, scale = 600, 0.125
    wanted = build_alibi_tensor(torch.ones(1, span, dtype=torch.int64), heads, dtype) * scale
    masks = Masks(frozenset({0}), dtype, alibi_slopes(heads), scale)
    got = masks.make(torch.tensor([[span - 1]]), span)[0]
    assert got is not None
    torch.testing.assert_close(got[0], wanted, rtol=0, atol=0)


def test_a_query_sees_its_window_with_alibi() -> None:
    masks = Masks(frozenset({0, 3}), torch.float32, alibi_slopes(2)).make(torch.tensor([[1, 5], [4, 0]]), 6)
    for window, mask in masks.items():
        assert mask is not None
        assert mask.shape == (2, 2, 2, 6)
        for row, positions in enumerate([(1, 5), (4, 0)]):
            for k, at in enumerate(positions):
                first = max(0, at + 1 - window) if window else 0
                seen = [key for key in range(6) if mask[row, 1, k, key] > -math.inf]
                assert seen == list(range(first, at + 1))


@pytest.mark.parametrize(
    ("windows", "start", "k", "needed"),
    [({0}, 0, 9, False), ({0}, 3, 1, False), ({0}, 3, 2, True), ({0, 8}, 0, 8, False), ({0, 8}, 0, 9, True)],
)
def test_a_mask_is_made_where_something_is_hidden(
    windows: set[int], start: int, k: int, needed: bool
) -> None:
    assert Masks(frozenset(windows), torch.float32).needed(start, k) == needed
    assert Masks(frozenset(windows), torch.float32, alibi_slopes(2)).needed(start, k)


@pytest.mark.parametrize(
    ("windows", "start", "needed"), [({0}, 7, False), ({0, 8}, 5, False), ({0, 8}, 6, True)]
)
def test_no_mask_is_made_where_attention_hides_later_keys(
    windows: set[int], start: int, needed: bool
) -> None:
    masks = Masks(frozenset(windows), torch.bfloat16, later_hidden=True)
    assert masks.needed(start, 3) == needed
    assert Masks(frozenset(windows), torch.bfloat16, alibi_slopes(2), later_hidden=True).needed(start, 3)
