"""Computes softmax and numbers of whole rows, each by two kernels.

The first spreads a row over many programs, each of which leaves its part. In the second every program puts
the parts together for itself. Nothing is counted or locked, so the same row gives the same bits each time.
Plain torch operations of `edge_tui.decoders.core.rows` are the reference, NaN and rows of −inf included.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.choose_parts import INF
from edge_tui.engine.ops.triton.launch import after_others, chain

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.kernels import Statistic

_GREATEST, _TOTAL, _COUNT, _ENTROPY, _SPREAD, _LOG_SUM_EXP, _EVENNESS = (
    tl.constexpr(number) for number in range(7)
)
_WIDE = tl.constexpr(4)
"""Most numbers of a part."""
_KINDS: dict[Statistic, tl.constexpr] = {
    "greatest": _GREATEST,
    "total": _TOTAL,
    "count": _COUNT,
    "entropy": _ENTROPY,
    "spread": _SPREAD,
    "log_sum_exp": _LOG_SUM_EXP,
    "evenness": _EVENNESS,
}


@triton.jit
def load_block(x, stride, V, outside, BLOCK: tl.constexpr):
    """Loads this program's numbers of a row of `V`; `outside` beyond its end."""
    row = tl.program_id(1).to(tl.int64)
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    return tl.load(x + row * stride + ids, mask=ids < V, other=outside)


@triton.jit
def _greatest(x):
    """Returns the greatest number; NaN if one is NaN, which a maximum on a GPU passes over."""
    broken = tl.max((x != x).to(tl.int32), 0)
    return tl.where(broken > 0, float("nan"), tl.max(x, 0))


@triton.jit
def _part_kernel(x, stride, parts, V, KIND: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """Leaves a program's part: a sum; count, mean and squared deviations; or greatest, weight and depth."""
    after_others(DEPENDENT)
    blocks, row = tl.num_programs(0), tl.program_id(1)
    mine = parts + _WIDE * row * blocks + tl.program_id(0)
    if KIND == _TOTAL or KIND == _ENTROPY:  # noqa: SIM109 - Triton has no tuples of constants
        x = load_block(x, stride, V, 0.0, BLOCK)
        if KIND == _ENTROPY:
            x = tl.where(x > 0.0, -x * tl.log(tl.where(x > 0.0, x, 1.0)), tl.where(x == x, 0.0, x))
        tl.store(mine, tl.sum(x, 0))
    else:
        x = load_block(x, stride, V, -INF, BLOCK)
        left = x > -INF
        number = tl.sum(left.to(tl.float32), 0)
        if KIND == _GREATEST:
            tl.store(mine, _greatest(x))
        elif KIND == _COUNT:
            tl.store(mine, number)
        elif KIND == _SPREAD:
            mean = tl.sum(tl.where(left, x, 0.0), 0) / tl.maximum(number, 1.0)
            away = tl.where(left, x - mean, 0.0)
            tl.store(mine, number)
            tl.store(mine + blocks, mean)
            tl.store(mine + 2 * blocks, tl.sum(away * away, 0))
        else:
            peak = tl.max(x, 0)
            removed = x == -INF  # NaN is not, and shows in the sum
            depth = tl.where(removed, 0.0, x - peak)
            weight = tl.where(removed, 0.0, tl.exp(depth))
            tl.store(mine, peak)
            tl.store(mine + blocks, tl.sum(weight, 0))
            if KIND == _EVENNESS:
                tl.store(mine + 2 * blocks, tl.sum(depth * weight, 0))
                tl.store(mine + 3 * blocks, number)


@triton.jit
def _greatest_and_weight(parts, row, blocks, PARTS: tl.constexpr):
    """Puts together a row's greatest logit, and the sum of its weights below that."""
    numbers = tl.arange(0, PARTS)
    there, inside = parts + _WIDE * row * blocks + numbers, numbers < blocks
    peak = tl.load(there, mask=inside, other=-INF)
    weight = tl.load(there + blocks, mask=inside, other=0.0)
    top = tl.max(peak, 0)
    empty = peak == -INF
    return top, tl.sum(weight * tl.where(empty, 0.0, tl.exp(tl.where(empty, 0.0, peak - top))), 0)


@triton.jit
def _total_kernel(parts, out, blocks, KIND: tl.constexpr, PARTS: tl.constexpr, DEPENDENT: tl.constexpr):
    """Puts a row's parts together."""
    after_others(DEPENDENT)
    row, numbers = tl.program_id(0), tl.arange(0, PARTS)
    there, inside = parts + _WIDE * row * blocks + numbers, numbers < blocks
    if KIND == _GREATEST:
        result = _greatest(tl.load(there, mask=inside, other=-INF))
    elif KIND == _LOG_SUM_EXP:
        top, weight = _greatest_and_weight(parts, row, blocks, PARTS)
        result = top + tl.log(weight)
    elif KIND == _EVENNESS:
        top, weight = _greatest_and_weight(parts, row, blocks, PARTS)
        peak = tl.load(there, mask=inside, other=-INF)
        own, deep = (
            tl.load(there + blocks, mask=inside, other=0.0),
            tl.load(there + 2 * blocks, mask=inside, other=0.0),
        )
        below = tl.where(peak == -INF, 0.0, peak - top)
        entropy = tl.log(weight) - tl.sum(tl.exp(below) * (deep + below * own), 0) / weight
        number = tl.sum(tl.load(there + 3 * blocks, mask=inside, other=0.0), 0)
        result = tl.where(number <= 1.0, 0.0, entropy / tl.log(number))
    else:
        part = tl.load(there, mask=inside, other=0.0)
        result = tl.sum(part, 0)
        if KIND == _SPREAD:
            mean = tl.load(there + blocks, mask=inside, other=0.0)
            squares = tl.load(there + 2 * blocks, mask=inside, other=0.0)
            away = mean - tl.sum(part * mean, 0) / result
            result = tl.sqrt(tl.sum(squares + tl.where(part > 0.0, part * away * away, 0.0), 0) / result)
    tl.store(out + row, result)


@triton.jit
def _softmax_kernel(
    z,
    stride,
    parts,
    out,
    V,
    LOG: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Writes probabilities, or their logarithms."""
    after_others(DEPENDENT)
    row = tl.program_id(1)
    top, weight = _greatest_and_weight(parts, row, tl.num_programs(0), PARTS)
    depth = load_block(z, stride, V, -INF, BLOCK) - top
    result = depth - tl.log(weight) if LOG else tl.exp(depth) / weight
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + row.to(tl.int64) * V + ids, result, mask=ids < V)


@triton.jit
def _reach_kernel(
    x,
    stride,
    parts,
    share,
    out,
    blocks,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Counts the blocks that a share of a row's sum covers, then the numbers in the one where it ends."""
    after_others(DEPENDENT)
    row, numbers = tl.program_id(0), tl.arange(0, PARTS)
    part = tl.load(parts + _WIDE * row * blocks + numbers, mask=numbers < blocks, other=0.0)
    goal = tl.load(share + row) * tl.sum(part, 0)
    covered = tl.sum(((tl.cumsum(part, 0) <= goal) & (numbers < blocks)).to(tl.int32), 0)
    before = tl.sum(tl.where(numbers < covered, part, 0.0), 0)
    ids = covered * BLOCK + tl.arange(0, BLOCK)
    own = tl.load(x + row.to(tl.int64) * stride + ids, mask=ids < V, other=0.0)
    inside = (before + tl.cumsum(own, 0) <= goal) & (ids < V)
    tl.store(out + row, tl.minimum(covered * BLOCK, V) + tl.sum(inside.to(tl.int32), 0))


class Cut:
    """Holds how rows are spread over programs.

    Args:
        x: `[…, V]`; all but the last axis are rows.

    Attributes:
        flat: `[R, V]`, each row in one piece.
        width: `V`.
        stride: Numbers from one row to the next.
        shape: Of `x`.
        blocks: Programs of a row.
        grid: All programs.
        first: Options of a kernel that follows torch operations, which are waited for in full.
        next: Options of a kernel that follows one of these, and may begin before that has ended.
        joined: The same where it knows no block.
        room: The least power of two of at least `blocks`.
    """

    def __init__(self, x: Tensor) -> None:
        self.shape = x.shape
        self.flat = x.reshape(-1, x.shape[-1])
        if self.flat.stride(-1) != 1:
            self.flat = self.flat.contiguous()
        self.width, self.stride = x.shape[-1], self.flat.stride(0)
        share: int = triton.next_power_of_2(triton.cdiv(self.width, 128))
        block = min(max(share, 256), 1024)
        self.blocks: int = triton.cdiv(self.width, block)
        self.room: int = triton.next_power_of_2(self.blocks)
        self.grid = self.blocks, len(self.flat)
        self.joined = chain(x.device)
        self.next = {"BLOCK": block, **self.joined}
        self.first = {name: value for name, value in self.next.items() if name != "launch_pdl"}

    def empty(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Makes a tensor on the device."""
        return torch.empty(shape, dtype=dtype, device=self.flat.device)


def softmax(z: Tensor, log: bool) -> Tensor:
    """Computes `rows.softmax`, or `rows.log_softmax`, of float32 `[…, V]`."""
    cut = Cut(z)
    parts, out = _parts_of(cut, _LOG_SUM_EXP), cut.empty(*cut.shape)
    row = cut.flat, cut.stride, parts, out, cut.width
    _softmax_kernel[cut.grid](*row, LOG=log, PARTS=cut.room, **cut.next)
    return out


def statistic(x: Tensor, name: Statistic) -> Tensor:
    """Computes the function of `rows` of that name of float32 `[…, V]`."""
    cut, kind = Cut(x), _KINDS[name]
    parts, out = _parts_of(cut, kind), cut.empty(*cut.shape[:-1], 1)
    _total_kernel[(cut.grid[1],)](parts, out, cut.blocks, KIND=kind, PARTS=cut.room, **cut.joined)
    return out


def reach(weight: Tensor, share: Tensor) -> Tensor:
    """Computes `rows.reach` of float32 `[R, V]` and shares `[R, 1]`: int64 `[R, 1]`."""
    cut = Cut(weight)
    parts, out = _parts_of(cut, _TOTAL), cut.empty(cut.grid[1], 1, dtype=torch.int64)
    row = cut.flat, cut.stride, parts, share.contiguous(), out, cut.blocks, cut.width
    _reach_kernel[(cut.grid[1],)](*row, PARTS=cut.room, **cut.next)
    return out


def _parts_of(cut: Cut, kind: tl.constexpr) -> Tensor:
    """Computes what the programs leave, float32 `[R, 4, blocks]`."""
    parts = cut.empty(cut.grid[1], _WIDE.value, cut.blocks)
    _part_kernel[cut.grid](cut.flat, cut.stride, parts, cut.width, KIND=kind, **cut.first)
    return parts
