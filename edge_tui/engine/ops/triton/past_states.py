"""Stores the newest hidden states of rows among those of all positions, and gives a row those of another.

Rows that go on from one winner, as contrastive search's do at each step, hold the same states up to there. So
a number on the device says how many positions are the same in all rows, and only later ones are moved. It has
two places: what reorders reads one and writes the other, and what stores next takes it over, so that no
program reads a number that another one changes.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_PROGRAMS = 264
"""Programs that share the positions to move: two for each multiprocessor of an H200."""


@triton.jit(do_not_specialize=["k"])  # a prompt's last chunk has any number
def _append_kernel(
    states,
    row_stride,
    new,
    length,
    shared,
    rows,
    k,
    D,
    ROOM: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Copies one position's state to its place; positions from the first new one on may differ."""
    number, column = tl.program_id(0), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = number // k
    at = tl.load(length + row) - k + number % k
    x = tl.load(new + number.to(tl.int64) * D + column, mask=column < D)
    tl.store(states + row.to(tl.int64) * row_stride + at * D + column, x, mask=column < D)
    if number + tl.program_id(1) == 0:
        every = tl.arange(0, ROOM)
        ends = tl.load(length + every, mask=every < rows, other=0x7FFFFFFF)
        alike = tl.minimum(tl.load(shared + 1), tl.maximum(tl.min(ends, 0) - k, 0))
        tl.store(shared, alike)
        tl.store(shared + 1, alike)


@triton.jit
def _reorder_kernel(
    states, row_stride, parent, length, shared, rows, D, ROOM: tl.constexpr, BLOCK: tl.constexpr
):
    """Moves whole positions, of all rows at once, so that nothing is read after it was overwritten."""
    row, columns = tl.arange(0, ROOM), tl.arange(0, BLOCK)
    inside = row < rows
    source = tl.load(parent + row, mask=inside, other=0)
    end = tl.max(tl.where(inside, tl.load(length + source, mask=inside, other=0), 0), 0)
    start = tl.load(shared)
    for position in range(start + tl.program_id(0), end, tl.num_programs(0)):
        for first in range(0, D, BLOCK):
            column = first + columns
            mask = inside[:, None] & (column < D)[None, :]
            place = states + position * D + column[None, :]
            x = tl.load(place + source[:, None] * row_stride, mask=mask)
            tl.debug_barrier()
            tl.store(place + row.to(tl.int64)[:, None] * row_stride, x, mask=mask)
    if tl.program_id(0) == 0:
        others = tl.sum((inside & (source != tl.load(parent))).to(tl.int32), 0)
        tl.store(shared + 1, tl.where(others == 0, end, start))


def append(states: Tensor, new: Tensor, length: Tensor, k: int, shared: Tensor) -> None:
    """Stores the newest `k` states of each row.

    Args:
        states: `[R, capacity, D]`.
        new: `[R * k, D]`.
        length: int64 `[R]`, positions of each row, these among them.
        k: Positions of each row.
        shared: int64 `[2]`, positions that are the same in all rows: as stored last, and as reordered since.
    """
    rows, _, width = states.shape
    new, block = new.contiguous(), min(triton.next_power_of_2(width), 1024)
    grid = rows * k, triton.cdiv(width, block)
    room = triton.next_power_of_2(rows)
    _append_kernel[grid](
        states, states.stride(0), new, length, shared, rows, k, width, ROOM=room, BLOCK=block
    )


def reorder(states: Tensor, parent: Tensor, length: Tensor, shared: Tensor) -> None:
    """Gives row `r` the first `length[parent[r]]` states of row `parent[r]`; the rest as for `append`."""
    rows, capacity, width = states.shape
    if rows == 1:
        return  # its parent is itself; other rows may lie beside it
    room = triton.next_power_of_2(rows)
    block = min(triton.next_power_of_2(width), max(2048 // room, 16))
    grid = (min(capacity, _PROGRAMS),)
    _reorder_kernel[grid](
        states, states.stride(0), parent, length, shared, rows, width, ROOM=room, BLOCK=block
    )
