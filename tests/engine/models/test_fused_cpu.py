"""The one-call step of the CPU: the same numbers as operation by operation, and used where it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.models import fused_cpu
from edge_tui.engine.models.base import ContextFull
from edge_tui.engine.ops.cpu import packed_sizes
from edge_tui.engine.ops.cpu import project as project_cpu
from edge_tui.engine.ops.linear import CpuLinear
from tests.engine.models.references import (
    LLAMA_CASES,
    TOLERANCE,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
)
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from edge_tui.engine.models.cache import FlatContext
    from edge_tui.engine.models.flat import FlatModel


class Counted:
    """Passes calls on and counts them."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        return self.inner(*arguments)

    def fits(self, *arguments: Any) -> bool:
        return bool(self.inner.fits(*arguments))


def counted(model: FlatModel) -> Counted:
    spy = Counted(model.fused)
    model.fused = spy  # type: ignore[assignment]
    return spy


def walk(model: FlatModel, rows: int) -> Tensor:
    """Logits of a decode that reads, steps, swaps rows, rewinds and forks."""
    ids = random_ids(rows, 30)
    ctx = model.open(rows, 64)
    model.prefill(ctx, ids[:, :8])
    seen = [one_by_one(model, ctx, ids[:, 8:18])]
    ctx.reorder(torch.arange(rows).flip(0))
    seen.append(one_by_one(model, ctx, ids[:, 18:24]))
    ctx.truncate(torch.full((rows,), 13))
    seen.append(one_by_one(model, ctx, ids[:, 24:27]))
    seen.append(one_by_one(model, ctx.row(0).fork(rows), ids[:, 27:]))
    assert ctx.length.tolist() == ctx.lengths() == [16] * rows
    return torch.cat(seen, 1)


@pytest.mark.parametrize("case", LLAMA_CASES)
def test_same_numbers(case: str, tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path, case))
    spy = counted(model)
    got = walk(model, 3)
    assert spy.calls == 22
    model.fused = None
    assert torch.equal(got, walk(model, 3))


def test_same_numbers_in_bfloat16(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path, "qwen3 biased"), dtype=torch.bfloat16, precision="bfloat16")
    spy = counted(model)
    got = walk(model, 1)
    assert spy.calls == 22
    model.fused = None
    assert torch.equal(got, walk(model, 1))


@pytest.mark.parametrize("case", LLAMA_CASES)
def test_rows_of_different_lengths_give_their_own_numbers(case: str, tmp_path: Path) -> None:
    """Also where a row leaves a window that others are still in, and in steps that go both ways."""
    model, ids = flat(checkpoint(tmp_path, case)), random_ids(3, 30)
    spy, lengths = counted(model), [20, 1, 9]

    def steps(ctx: FlatContext) -> Tensor:
        tokens = [
            torch.stack([ids[row, n + at] for row, n in enumerate(lengths)])[:, None] for at in range(9)
        ]
        return torch.cat([model.forward(ctx, each).logits for each in tokens], 1)

    def ragged() -> FlatContext:
        ctx = model.open(3, 64)
        for row, length in enumerate(lengths):
            model.prefill(ctx.row(row), ids[row : row + 1, :length])
        return ctx

    ctx, before = ragged(), spy.calls
    got = steps(ctx)
    assert spy.calls == before + 9
    model.fused = None
    assert torch.equal(got, steps(ragged()))
    for row, length in enumerate(lengths):
        alone = model.open(1, 64)
        model.prefill(alone, ids[row : row + 1, :length])
        wanted = one_by_one(model, alone, ids[row : row + 1, length : length + 9])
        assert deviation(got[row : row + 1], wanted) < TOLERANCE


def test_everything_else_goes_the_other_way(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path, "llama"))
    spy = counted(model)
    ctx = model.open(2, 16)
    model.prefill(ctx, random_ids(2, 3))
    ctx.truncate(torch.tensor([3, 1]))
    model.forward(ctx, random_ids(2, 2))  # several positions
    assert spy.calls == 0
    model.forward(ctx, random_ids(2, 1))  # rows of different lengths
    assert spy.calls == 1
    assert ctx.length.tolist() == [6, 4]


def test_full_context(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path, "llama"))
    ctx = model.open(1, 2)
    one_by_one(model, ctx, random_ids(1, 2))
    with pytest.raises(ContextFull):
        model.forward(ctx, random_ids(1, 1))
    assert ctx.length.tolist() == [2]


@pytest.mark.parametrize("precision", ["int8", "4bit"])
@pytest.mark.parametrize(
    ("case", "big", "wide"),
    [("qwen2 old, tied", False, False), ("llama biased", True, False), ("phi3 windowed", True, True)],
)
def test_same_numbers_of_packed_matrices(
    precision: str, case: str, big: bool, wide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 1 if big else 1 << 30)
    if not wide:
        monkeypatch.setattr(project_cpu, "can_int8_vector", lambda: False)
    model = flat(checkpoint(tmp_path, case), precision=precision)
    spy = counted(model)
    got = walk(model, 2)
    if all(isinstance(m, CpuLinear) for layer in model.weights.layers for m in (layer.qkv, layer.mlp.down)):
        assert spy.calls == 22
    model.fused = None
    assert torch.equal(got, walk(model, 2))


@pytest.mark.skipif(not project_cpu.can_half(), reason="no packed float16 here")
@pytest.mark.parametrize("case", ["qwen2 old, tied", "phi3 windowed"])
def test_same_numbers_of_halves(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 1)
    monkeypatch.setattr(project_cpu, "_LOST", 1.0)  # whatever the checkpoint is stored in
    model = flat(checkpoint(tmp_path, case))
    assert model.weights.head.kind == "half"
    spy = counted(model)
    got = walk(model, 2)
    assert spy.calls == 22
    model.fused = None
    assert torch.equal(got, walk(model, 2))


def test_what_only_bitsandbytes_reads_is_not_fused(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path, "llama"), precision="4bit")
    assert model.fused is not None
    odd = make_checkpoint(tmp_path / "odd", "llama", hidden=72, heads=6, kv_heads=3)
    model = flat(odd, precision="4bit")
    assert model.fused is None
    assert walk(model, 1).isfinite().all()


def test_released_weights_are_let_go(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path, "llama"))
    ctx = model.open(1, 4)
    model.release()
    with pytest.raises(RuntimeError, match="released"):
        model.forward(ctx, random_ids(1, 1))


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A torch whose compiler refuses."""

    def refuse(function: object) -> None:
        raise RuntimeError("no such compiler")

    fused_cpu.compiled_step.cache_clear()
    monkeypatch.setattr(torch.jit, "script", refuse)
    yield
    fused_cpu.compiled_step.cache_clear()


def test_without_a_compiler(tmp_path: Path, uncompiled: None) -> None:
    model = flat(checkpoint(tmp_path, "qwen3"))
    assert model.fused is None
    assert walk(model, 2).isfinite().all()
