"""Dequantises codes in groups to 16 bits: for as many tokens as a chunk of a prompt has, cuBLAS is faster.

Each weight is the file's own, rounded once to the compute dtype.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.code_groups import levels_of_words
from edge_tui.engine.ops.group_form import OUTER
from edge_tui.engine.ops.triton.launch import INTERPRETED
from edge_tui.engine.ops.triton.project_codes import LEAST, NONE, OWN, stored_factors
from edge_tui.engine.ops.triton.project_groups import elements

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.packed import PackedMatrix

_SPAN = tl.constexpr(OUTER)
_ROWS, _COLUMNS = (64, 256) if INTERPRETED else (4, 256)
"""Those of a program; the interpreter takes as long for few as for many."""


@triton.jit
def _widen(
    weight,
    scale,
    outer,
    levels,  # in the order of the codes in words, or None: codes are numbers
    out,
    N,
    K: tl.constexpr,
    SPAN: tl.constexpr,  # words of a row
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    LEAST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Writes `BLOCK` columns of `ROWS` rows; the grid is blocks of rows and of columns."""
    CODES: tl.constexpr = 32 // BITS  # of a word
    CHUNK: tl.constexpr = 16 * CODES
    COLUMNS: tl.constexpr = SPAN * CODES
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column = (tl.program_id(1) * BLOCK + tl.arange(0, BLOCK))[None, :]
    there = (row < N) & (column < K)
    # As `code_groups.pack` lays them out.
    word = column // CHUNK * 16 + column // CODES % 4 * 4 + column // (4 * CODES) % 4
    code = column % CODES
    words = tl.load(weight + row * SPAN + word, mask=there, other=0)
    if levels is not None:
        q = tl.load(levels + (words >> (BITS * code) & 15), mask=there, other=0.0)
    else:
        q = (words >> (BITS * (code // 2) + 16 * (code % 2)) & ((1 << BITS) - 1)).to(tl.float32)
    factor = tl.load(scale + row * (COLUMNS // GROUP) + column // GROUP, mask=there, other=0)
    wide = 0.0
    if outer is not None:
        wide = tl.load(outer + row * ((COLUMNS + _SPAN - 1) // _SPAN) + column // _SPAN, mask=there, other=0)
    s, least = stored_factors(factor, wide, LEAST, outer is not None)
    if levels is not None:
        w = q * s
    elif LEAST == OWN:
        w = q * s - least
    elif LEAST == NONE:
        w = (q - (1 << (BITS - 1))) * s
    else:
        w = (q - least) * s
    tl.store(out + row * K + column, w.to(out.dtype.element_ty), mask=there)


@cache
def _levels(device: torch.device) -> Tensor:
    """Returns the levels of NF4, float32 `[16]`; the first call on a device waits for it."""
    return levels_of_words().to(device)


def widen(packed: PackedMatrix, dtype: torch.dtype) -> Tensor:
    """Dequantises a matrix of codes in groups.

    Returns:
        `[N, K]` in `dtype`.
    """
    form = packed.form
    assert form is not None
    assert packed.scale is not None
    stored = torch.float32 if INTERPRETED else dtype  # the interpreter rounds bfloat16 down
    out = torch.empty(packed.rows, packed.columns, dtype=stored, device=packed.weight.device)
    grid = (triton.cdiv(packed.rows, _ROWS), triton.cdiv(packed.columns, _COLUMNS))
    _widen[grid](
        packed.weight,
        elements(packed.scale),
        None if packed.outer is None else elements(packed.outer),
        _levels(out.device) if form.levels else None,
        out,
        packed.rows,
        K=packed.columns,
        SPAN=packed.weight.shape[1],
        BITS=form.bits,
        GROUP=form.group,
        LEAST=LEAST[form.least],
        ROWS=_ROWS,
        BLOCK=_COLUMNS,
    )
    return out.to(dtype)
