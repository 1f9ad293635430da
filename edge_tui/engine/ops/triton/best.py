"""Selects the greatest of a row by two kernels: the few best, the best one, or the one that a draw takes.

For the few best, the first kernel finds each program's greatest. The `count`-th greatest of those is a bound
that none of the best lies below, and the second kernel lists the candidates that reach it, and puts them in
order by counting, for each, how many are better. Equal numbers are ordered by id.

NaN counts as removed. Ids are those of tokens also in rows where nothing is left.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.choose_parts import INF, append_best, is_last, take_best
from edge_tui.engine.ops.triton.launch import after_others
from edge_tui.engine.ops.triton.noise import gumbel, row_stride
from edge_tui.engine.ops.triton.rows import Cut, load_block

if TYPE_CHECKING:
    from torch import Tensor

_FEW = tl.constexpr(16)
"""So many bests are found one after the other."""
_SOME = tl.constexpr(32)
"""Parts that are compared with all others at a time."""


@triton.jit
def load_valid(z, stride, V, BLOCK: tl.constexpr):
    """Loads this program's logits, −inf in place of NaN and beyond the row's end."""
    x = load_block(z, stride, V, -INF, BLOCK)
    return tl.where(x == x, x, -INF)


@triton.jit
def _peak_kernel(z, stride, peaks, filled, arrived, V, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """Leaves each program's greatest logit, and empties the row's list."""
    after_others(DEPENDENT)
    block, row = tl.program_id(0), tl.program_id(1)
    x = load_valid(z, stride, V, BLOCK)
    tl.store(peaks + row * tl.num_programs(0) + block, tl.max(x, 0))
    if block == 0:
        tl.store(filled + row, 0)
        tl.store(arrived + row, 0)


@triton.jit
def bound_of(peaks, row, blocks, MOST: tl.constexpr, PARTS: tl.constexpr):
    """Returns a bound that at least `MOST` of a row's parts reach: the `MOST`-th greatest, or one below."""
    parts = tl.arange(0, PARTS)
    peak = tl.load(peaks + row * blocks + parts, mask=parts < blocks, other=-INF)
    if MOST <= _FEW:
        bound = tl.max(peak, 0)
        for _ in range(1, MOST):  # equal ones at once
            peak = tl.where(peak == bound, -INF, peak)
            bound = tl.max(peak, 0)
    else:
        better = tl.zeros((PARTS,), tl.int32)
        for start in range(0, blocks, _SOME):
            others = start + tl.arange(0, _SOME)
            other = tl.load(peaks + row * blocks + others, mask=others < blocks, other=-INF)
            better += tl.sum((other[None, :] > peak[:, None]).to(tl.int32), 1)
        bound = tl.min(tl.where(better < MOST, peak, INF), 0)
    return bound


@triton.jit
def _best_kernel(
    z,
    stride,
    peaks,
    filled,
    arrived,
    scores,
    names,
    values,
    ids,
    V,
    MOST: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Lists the candidates that reach the bound; the last program puts them in order."""
    after_others(DEPENDENT)
    block, blocks, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    x = load_valid(z, stride, V, BLOCK)
    valid = (x >= bound_of(peaks, row, blocks, MOST, PARTS)) & (x > -INF)
    found = tl.minimum(tl.sum(valid.to(tl.int32), 0), MOST)
    scores, names = scores + row * blocks * MOST, names + row * blocks * MOST
    x = tl.where(valid, x, -INF)
    append_best(scores, names, filled + row, x, found, block * BLOCK, BLOCK)
    if is_last(arrived + row, blocks):
        values, ids = values + row * MOST, ids + row * MOST
        take_best(scores, names, filled + row, 0.0, values, ids, MOST, 0, SLOTS)


@triton.jit
def _first_two_kernel(
    z,
    stride,
    key,
    key_stride,
    step,
    step_stride,
    offset,
    tops,
    seconds,
    places,
    V,
    NOISY: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Leaves each program's two greatest logits, or sums of a logit and its noise, and the first one's id."""
    after_others(DEPENDENT)
    block, row = tl.program_id(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = load_valid(z, stride, V, BLOCK)
    if NOISY:
        x = x + gumbel(ids + offset, tl.load(key + row * key_stride), tl.load(step + row * step_stride))
    top, index = tl.max(x, 0, return_indices=True)
    place = row * tl.num_programs(0) + block
    tl.store(tops + place, top)
    tl.store(seconds + place, tl.max(tl.where(tl.arange(0, BLOCK) == index, -INF, x), 0))
    tl.store(places + place, tl.minimum(block * BLOCK + index, V - 1))


@triton.jit
def _first_kernel(tops, seconds, places, chosen, lead, blocks, PARTS: tl.constexpr, DEPENDENT: tl.constexpr):
    """Takes the greatest of a row, the first of equals, and its lead over the second."""
    after_others(DEPENDENT)
    row, parts = tl.program_id(0), tl.arange(0, PARTS)
    there, inside = row * blocks + parts, parts < blocks
    top_of = tl.load(tops + there, mask=inside, other=-INF)
    top, part = tl.max(top_of, 0, return_indices=True)
    second_of = tl.load(seconds + there, mask=inside, other=-INF)
    second = tl.max(tl.where(parts == part, second_of, top_of), 0)
    tl.store(chosen + row, tl.load(places + row * blocks + part).to(tl.int64))
    tl.store(lead + row, top - second)


def best(z: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Selects the `count` greatest of each row float32 `[R, V]`: values and ids int64 `[R, count]`."""
    cut = Cut(z)
    if count > cut.blocks:  # too few parts for a bound; such rows are short, or many candidates wanted
        values, ids = z.topk(count, -1)
        return values, ids
    rows, integers = len(z), torch.int32
    peaks, counters = cut.empty(rows, cut.blocks), cut.empty(2, rows, dtype=integers)
    scores, names = cut.empty(rows, cut.blocks, count), cut.empty(rows, cut.blocks, count, dtype=integers)
    values, ids = cut.empty(rows, count), cut.empty(rows, count, dtype=torch.int64)
    row = cut.flat, cut.stride, peaks, *counters
    _peak_kernel[cut.grid](*row, cut.width, **cut.first)
    _best_kernel[cut.grid](
        *row,
        scores,
        names,
        values,
        ids,
        cut.width,
        MOST=count,
        SLOTS=triton.next_power_of_2(count),
        PARTS=cut.room,
        **cut.next,
    )
    return values, ids


def argmax_and_lead(z: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the greatest of each row float32 `[R, V]`: ids int64 `[R, 1]`, and leads float32 `[R]`."""
    chosen, lead = _first(z, None, 0, None, 0, 0)
    return chosen[:, None], lead


def draw(z: Tensor, key: Tensor, step: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """Draws a token of each row float32 `[R, V]`: ids int64 `[R]`, and margins float32 `[R]`."""
    return _first(z, key, row_stride(key), step, row_stride(step), offset)


def _first(z: Tensor, *noise: Tensor | int | None) -> tuple[Tensor, Tensor]:
    """Finds the greatest of each row, or of its sums with noise where the first of `noise` is a key."""
    cut, rows = Cut(z), len(z)
    tops, seconds = cut.empty(2, rows, cut.blocks)
    parts = tops, seconds, cut.empty(rows, cut.blocks, dtype=torch.int32)
    chosen, lead = cut.empty(rows, dtype=torch.int64), cut.empty(rows)
    row = cut.flat, cut.stride, *noise, *parts, cut.width
    _first_two_kernel[cut.grid](*row, NOISY=noise[0] is not None, **cut.first)
    _first_kernel[(rows,)](*parts, chosen, lead, cut.blocks, PARTS=cut.room, **cut.joined)
    return chosen, lead
