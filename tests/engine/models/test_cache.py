"""Limits of a context, and the way it works on an accelerator, where the host may not look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui.engine.models import cache as cache_module
from edge_tui.engine.models import capacity
from edge_tui.engine.models.base import ContextFull
from edge_tui.engine.models.cache import FlatContext
from edge_tui.errors import Cancelled
from tests.engine.models.references import TOLERANCE, checkpoint, deviation, flat, one_by_one, random_ids
from tests.engine.ops import reference

if TYPE_CHECKING:
    from pathlib import Path

    from edge_tui.engine.models.flat import FlatModel


@pytest.fixture(scope="module", params=["qwen2", "mistral windowed"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FlatModel:
    return flat(checkpoint(tmp_path_factory.mktemp("cache"), request.param))


def test_full_contexts_refuse(model: FlatModel) -> None:
    ctx, ids = model.open(2, 8), random_ids(2, 9)
    with pytest.raises(ContextFull, match="needs 9 positions, but the context holds 8"):
        model.prefill(ctx, ids)
    model.prefill(ctx, ids[:, :8])
    ctx.truncate(torch.tensor([8, 3]))
    with pytest.raises(ContextFull, match="holds 8 positions and 8 are taken"):
        model.forward(ctx, ids[:, :1])
    assert ctx.length.tolist() == [8, 3]
    ctx.truncate(torch.tensor([7, 3]))
    model.forward(ctx, ids[:, :1])
    assert ctx.length.tolist() == [8, 4]


def test_cancelling_leaves_a_chunks_end(model: FlatModel) -> None:
    ctx, ids, told = model.open(1, 32), random_ids(1, 20), []
    with pytest.raises(Cancelled):
        model.prefill(
            ctx,
            ids,
            chunk=6,
            progress=lambda done, total: told.append((done, total)),
            cancelled=lambda: len(told) == 2,
        )
    assert told == [(6, 20), (12, 20)]
    assert ctx.length.tolist() == [12]
    rest = model.prefill(ctx, ids[:, 12:]).logits
    wanted = model.forward(model.open(1, 32), ids).logits
    assert deviation(rest, wanted[:, -1:]) < TOLERANCE


def test_length_and_buffers_keep_their_place(model: FlatModel) -> None:
    """Captured graphs hold these addresses."""
    ctx = model.open(2, 32)
    before = [ctx.length.data_ptr(), *(kv.data_ptr() for kv in ctx.kv)]
    model.prefill(ctx, random_ids(2, 9))
    ctx.truncate(torch.tensor([9, 5]))
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
    model.prefill(ctx, ids[:, :9])
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


HEADS, KV_HEADS, WIDTH = 4, 2, 8


def bare(rows: int, capacity: int, share: bool) -> FlatContext:
    """A context of two layers and no model."""
    angle = torch.outer(torch.arange(capacity), torch.tensor([1.0, 0.1, 1.0, 0.1]))
    sin = angle.sin() * torch.tensor([-1.0, -1.0, 1.0, 1.0])
    return FlatContext(
        rows, capacity, tuple((i, 2 * KV_HEADS, WIDTH) for i in range(2)), angle.cos(), sin, share=share
    )


def step(ctx: FlatContext, gen: torch.Generator, k: int = 1) -> torch.Tensor:
    """Appends `k` random positions through `reference.attend`; what attention returned, layer by layer."""
    outs = []
    for i in range(2):
        qkv = torch.randn(ctx.rows * k, (HEADS + 2 * KV_HEADS) * WIDTH, generator=gen)
        outs.append(torch.empty(ctx.rows * k, HEADS * WIDTH))
        where = *ctx.sources(i), ctx.length, ctx.cos, ctx.sin
        reference.attend(qkv, *where, outs[-1], heads=HEADS, kv_heads=KV_HEADS, k=k)
    ctx.advance(k)
    return torch.stack(outs)


@pytest.fixture(params=[False, True], ids=["copied", "shared"])
def pair(request: pytest.FixtureRequest) -> tuple[FlatContext, FlatContext]:
    """A parent of seven positions, and its fork of three rows."""
    parent = bare(1, 32, request.param)
    step(parent, torch.Generator().manual_seed(1), 7)
    return parent, parent.fork(3)


def played(ctx: FlatContext, truncate: list[int] | None = None) -> list[torch.Tensor]:
    """What a fork answers over some steps in which rows take over each other's past."""
    gen, answers = torch.Generator().manual_seed(2), []
    for parents in ([0, 0, 0], [2, 2, 0], [1, 0, 1], [2, 1, 0]):
        answers.append(step(ctx, gen))
        ctx.reorder(torch.tensor(parents))
    if truncate is not None:
        ctx.truncate(torch.tensor(truncate))
    answers += [step(ctx, gen, 3), step(ctx, gen)]
    ctx.reorder(torch.tensor([1, 1, 2]))
    return [*answers, step(ctx, gen)]


@pytest.mark.parametrize(
    "truncate",
    [None, [10, 10, 10], [7, 7, 7], [4, 4, 4], [9, 8, 11]],
    ids=["", "level", "all", "below", "ragged"],
)
def test_sharing_changes_nothing(truncate: list[int] | None) -> None:
    answers, contexts = [], []
    for share in (False, True):
        parent = bare(1, 32, share)
        step(parent, torch.Generator().manual_seed(1), 7)
        contexts.append(parent.fork(3))
        assert (contexts[-1].branches is not None) == share
        answers.append(played(contexts[-1], truncate))
    copied, shared = contexts
    kept = truncate is None or (min(truncate) == max(truncate) and truncate[0] >= 7)
    assert (shared.branches is not None) == kept
    for wanted, got in zip(*answers, strict=True):
        assert torch.equal(got, wanted)
    assert torch.equal(shared.length, copied.length)
    assert (shared.bound, shared.uniform) == (copied.bound, copied.uniform)
    end = int(copied.length.min())
    assert torch.equal(torch.stack(shared.kv)[:, :, :, :end], torch.stack(copied.kv)[:, :, :, :end])
    assert shared.branches is None


def test_taking_positions_back_lengthens_no_row() -> None:
    ctx = bare(2, 32, share=False)
    step(ctx, torch.Generator().manual_seed(1), 7)
    ctx.truncate(torch.tensor([6, 2]))
    ctx.truncate(torch.tensor([4, 4]))
    assert ctx.lengths() == ctx.length.tolist() == [4, 2]


def test_a_fork_can_be_used_again(pair: tuple[FlatContext, FlatContext]) -> None:
    parent, ctx = pair

    def addresses() -> list[int]:
        parts = [ctx.length, *ctx.sources(0), *ctx.sources(1)]
        return [part.data_ptr() for part in parts if part is not None]

    before, first = addresses(), played(ctx)
    assert ctx.refork()
    assert ctx.lengths() == [7, 7, 7]
    for wanted, got in zip(first, played(ctx), strict=True):
        assert torch.equal(got, wanted)
    parent.truncate(torch.tensor([3]))
    step(parent, torch.Generator().manual_seed(3), 9)
    assert ctx.refork()
    assert addresses() == before
    for wanted, got in zip(played(parent.fork(3)), played(ctx), strict=True):
        assert torch.equal(got, wanted)
    assert not parent.refork()


def test_a_fork_refuses_what_it_has_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "STEP", 4)
    parent = bare(1, 32, share=True)
    step(parent, torch.Generator().manual_seed(1), 7)
    ctx = parent.fork(2)
    parent.truncate(torch.tensor([4]))
    assert ctx.refork()  # 25 positions had been rounded up to 28
    parent.truncate(torch.tensor([3]))
    assert not ctx.refork()
    assert ctx.lengths() == [4, 4]
    ctx.materialise()
    assert not ctx.refork()


def test_the_model_takes_a_fork_that_shares(model: FlatModel) -> None:
    """Its plain operations read one block, so they put the fork together first."""
    ids = random_ids(3, 12)
    ids[:, :6] = ids[0, :6]
    wanted = model.forward(model.open(3, 32), ids).logits[:, 6:]
    for first in (1, 6):
        root = model.open(1, 32)
        root.share = True
        model.prefill(root, ids[:1, :6])
        ctx = root.fork(3)
        got = model.forward(ctx, ids[:, 6 : 6 + first]).logits
        assert ctx.branches is None
        got = torch.cat((got, one_by_one(model, ctx, ids[:, 6 + first :])), 1) if first < 6 else got
        assert deviation(got, wanted) < TOLERANCE
