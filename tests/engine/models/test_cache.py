"""Limits of a context, and the way it works on an accelerator, where the host may not look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui.engine.models import cache as cache_module
from edge_tui.engine.models.base import Cancelled, ContextFull
from tests.engine.models.references import TOLERANCE, checkpoint, deviation, flat, one_by_one, random_ids

if TYPE_CHECKING:
    from pathlib import Path

    from edge_tui.engine.models.flat import FlatModel


@pytest.fixture(scope="module", params=["qwen2", "mistral windowed"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FlatModel:
    return flat(checkpoint(tmp_path_factory.mktemp("cache"), request.param))


def test_full_contexts_refuse(model: FlatModel) -> None:
    ctx, ids = model.open(2, 8), random_ids(2, 9)
    with pytest.raises(ContextFull, match="needs 9 positions, but the context holds 8"):
        model.prefill(ctx, ids, torch.tensor([9, 1]))
    model.prefill(ctx, ids, torch.tensor([8, 3]))
    with pytest.raises(ContextFull, match="holds 8 positions and 8 are taken"):
        model.forward(ctx, ids[:, :1])
    assert ctx.length.tolist() == [8, 3]
    ctx.truncate(torch.tensor([7, 3]))
    model.forward(ctx, ids[:, :1])
    assert ctx.length.tolist() == [8, 4]


def test_padding_may_stick_out_of_the_context(model: FlatModel) -> None:
    """A short row near the end beside a long prompt at the beginning."""
    ids = random_ids(2, 24)
    wanted = model.forward(model.open(2, 24), ids).logits
    ctx = model.open(2, 24)
    model.prefill(ctx, ids[:, :22], torch.tensor([22, 2]))
    more = torch.stack([torch.cat((ids[0, 22:], ids[0, :20])), ids[1, 2:]])
    got = model.prefill(ctx, more, torch.tensor([2, 22])).logits[:, 0]
    assert deviation(got, wanted[:, -1]) < TOLERANCE


def test_cancelling_leaves_a_chunks_end(model: FlatModel) -> None:
    ctx, ids, told = model.open(1, 32), random_ids(1, 20), []
    with pytest.raises(Cancelled):
        model.prefill(
            ctx,
            ids,
            torch.tensor([20]),
            chunk=6,
            progress=lambda done, total: told.append((done, total)),
            cancelled=lambda: len(told) == 2,
        )
    assert told == [(6, 20), (12, 20)]
    assert ctx.length.tolist() == [12]
    rest = model.prefill(ctx, ids[:, 12:], torch.tensor([8])).logits
    wanted = model.forward(model.open(1, 32), ids).logits
    assert deviation(rest, wanted[:, -1:]) < TOLERANCE


@pytest.mark.parametrize("lengths", [[0, 4], [4, 21]])
def test_prompt_lengths_are_checked(model: FlatModel, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match=r"1 … 20"):
        model.prefill(model.open(2, 32), random_ids(2, 20), torch.tensor(lengths))


def test_length_and_buffers_keep_their_place(model: FlatModel) -> None:
    """Captured graphs hold these addresses."""
    ctx = model.open(2, 32)
    before = [ctx.length.data_ptr(), *(kv.data_ptr() for kv in ctx.kv)]
    model.prefill(ctx, random_ids(2, 9), torch.tensor([9, 5]))
    model.forward(ctx, random_ids(2, 2))
    ctx.reorder(torch.tensor([1, 0]))
    ctx.truncate(torch.tensor([3, 3]))
    assert [ctx.length.data_ptr(), *(kv.data_ptr() for kv in ctx.kv)] == before


def test_without_looking_from_the_host(model: FlatModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on an accelerator: positions from the device, attention over buckets, bounds only."""
    monkeypatch.setattr(cache_module, "BUCKET", 8)
    ids = random_ids(3, 30)
    wanted = model.forward(model.open(3, 32), ids).logits
    ctx = model.open(3, 32)
    ctx.on_host = False
    model.prefill(ctx, ids[:, :9], torch.tensor([9, 9, 9]))
    assert ctx.span(1) == 16
    got = one_by_one(model, ctx, ids[:, 9:20])
    assert deviation(got, wanted[:, 9:20]) < TOLERANCE
    ctx.truncate(torch.tensor([12, 7, 19]))
    assert ctx.bound == 20
    ctx.reorder(torch.tensor([2, 0, 1]))
    at, parent = [19, 12, 7], [2, 0, 1]
    for step in range(11):
        now = torch.stack([ids[p, n + step] for p, n in zip(parent, at, strict=True)])[:, None]
        right = torch.stack([wanted[p, n + step] for p, n in zip(parent, at, strict=True)])
        assert deviation(model.forward(ctx, now).logits[:, 0], right) < TOLERANCE
    assert ctx.bound == 31
    model.forward(ctx, ids[:, :1])
    ctx.truncate(torch.tensor([9, 9, 9]))
    model.forward(ctx, ids[:, :20])  # the bound alone would have refused
    assert ctx.length.tolist() == [29, 29, 29]


def test_a_released_model_says_so(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path / "c", "qwen2"))
    ctx = model.open(1, 8)
    model.release()
    with pytest.raises(RuntimeError, match="released"):
        model.forward(ctx, random_ids(1, 1))
