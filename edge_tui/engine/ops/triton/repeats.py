"""Counts repetitions by one kernel, which takes the place of nine torch operations over `[R, N, most]`.

A program compares the ids before some places of a row with the row's last ones, all at once.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

_PLACES = 32
"""Places of one program."""


@triton.jit(do_not_specialize=["ids", "stride"])  # they follow the length of the text
def _repeats_kernel(ids, stride, out, N, MOST: tl.constexpr, SPAN: tl.constexpr, PLACES: tl.constexpr):
    """Counts for each place the ids before it, nearest first, up to the first that differs."""
    row = ids + tl.program_id(1).to(tl.int64) * stride
    place, back = tl.program_id(0) * PLACES + tl.arange(0, PLACES), tl.arange(0, SPAN)
    last = tl.load(row + N - 1 - back, mask=back < N, other=-1)[None, :]
    before = place[:, None] - 1 - back[None, :]
    same = tl.load(row + before, mask=(before >= 0) & (before < N), other=-1) == last
    length = tl.min(tl.where(same & (last >= 0), MOST, tl.minimum(back, MOST)[None, :]), 1)
    tl.store(out + tl.program_id(1).to(tl.int64) * N + place, length.to(tl.int64), mask=place < N)


def repeat_lengths(ids: Tensor, most: int) -> Tensor:
    """Computes `repeats.repeat_lengths` of int64 `[R, N]`: int64 `[R, N]`."""
    ids = ids if ids.stride(-1) == 1 else ids.contiguous()
    rows, width = ids.shape
    out = torch.empty(rows, width, dtype=torch.int64, device=ids.device)
    grid = triton.cdiv(width, _PLACES), rows
    span: int = triton.next_power_of_2(most)
    _repeats_kernel[grid](ids, ids.stride(0), out, width, MOST=most, SPAN=span, PLACES=_PLACES)
    return out
