"""Lays codes, tokens and factors of groups out in registers as the matrices that tensor cores take.

A tensor is split and turned alone: each number stays in its lane, so nothing passes through shared memory.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, index"

from __future__ import annotations

import triton
import triton.language as tl

from edge_tui.engine.ops.triton.launch import COMPILED
from edge_tui.engine.ops.triton.project_tensor import pairs

_TIMES_BF16 = tl.constexpr("{ .reg .b32 zero; mov.b32 zero, 0x80008000; fma.rn.bf16x2 $0, $1, $2, zero; }")
_TIMES_FP16 = tl.constexpr("mul.rn.f16x2 $0, $1, $2;")
"""Products of pairs. The former adds -0.0, which changes nothing: without it, it needs a newer GPU."""


@triton.jit
def scaled(words, gains, DTYPE: tl.constexpr):
    """Multiplies pairs of 16-bit numbers by pairs, rounded once."""
    if COMPILED and tl.bfloat16 == DTYPE:
        return tl.inline_asm_elementwise(
            _TIMES_BF16, "=r,r,r", [words, gains], tl.int32, is_pure=True, pack=1
        )
    else:
        room = 1.0 / 32 if tl.float16 == DTYPE else 1.0
        loud = pairs(words, DTYPE).to(tl.float32) * (pairs(gains, DTYPE).to(tl.float32) * room)
        # The interpreter rounds bfloat16 down.
        bits = loud.to(tl.int32, bitcast=True)
        if tl.float16 == DTYPE:
            low, high = tl.split(loud.to(tl.float16).to(tl.int16, bitcast=True))
        else:
            low, high = tl.split(((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).to(tl.int16))
        return (low.to(tl.int32) & 0xFFFF) | (high.to(tl.int32) << 16)


@triton.jit
def masked(words, here, DTYPE: tl.constexpr):
    """Multiplies by a power of two or 0; float16 by 1 or 0."""
    if not COMPILED and tl.bfloat16 == DTYPE:
        return scaled(words, here, DTYPE)
    elif not COMPILED:
        return tl.where(here != 0, words, 0)
    elif tl.float16 == DTYPE:
        return tl.inline_asm_elementwise(_TIMES_FP16, "=r,r,r", [words, here], tl.int32, is_pure=True, pack=1)
    else:
        return tl.inline_asm_elementwise(_TIMES_BF16, "=r,r,r", [words, here], tl.int32, is_pure=True, pack=1)


@triton.jit
def tokens_matrix(
    words,
    DTYPE: tl.constexpr,
    HALVES: tl.constexpr,
    UNITS: tl.constexpr,
    WARPS: tl.constexpr,
    PARTS: tl.constexpr,
    RUN: tl.constexpr,
):
    """Lays tokens out as matrices for tensor cores, one for each unit, part and warp."""
    SLOTS: tl.constexpr = words.shape[1]
    STEPS: tl.constexpr = words.shape[4] // 8  # of 16 columns
    x = tl.reshape(pairs(words, DTYPE), (HALVES, UNITS, PARTS, RUN, SLOTS, WARPS, 8, 4, STEPS, 4))
    x = tl.permute(x, (1, 2, 5, 4, 3, 8, 7, 9, 0, 6))
    x = tl.reshape(x, (UNITS * PARTS * WARPS, SLOTS * RUN * STEPS * 16, HALVES * 8))
    return x if COMPILED else x.to(tl.float32)


@triton.jit
def weights_matrix(
    words,
    DTYPE: tl.constexpr,
    FLOAT: tl.constexpr,
    UNITS: tl.constexpr,
    SIDE: tl.constexpr,
    WARPS: tl.constexpr,
    SLOTS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Lays numbers out as matrices for tensor cores, one for each unit, part and warp."""
    BLOCK_N: tl.constexpr = words.shape[0] // (UNITS * SIDE * WARPS)
    PLACES: tl.constexpr = 2 * words.numel // (words.shape[0] * 4)  # columns of a lane
    DEEP: tl.constexpr = SIDE * PLACES // (SLOTS * PARTS)  # those of a slot
    matrix = pairs(words, DTYPE).to(FLOAT)
    matrix = tl.reshape(matrix, (BLOCK_N // 8, UNITS, SIDE, WARPS, 8, 4, PLACES))
    matrix = tl.permute(matrix, (1, 3, 0, 4, 2, 6, 5))
    matrix = tl.reshape(matrix, (UNITS, WARPS, BLOCK_N, SLOTS, PARTS, DEEP // 4, 4, 4))
    matrix = tl.permute(matrix, (0, 4, 1, 2, 3, 5, 7, 6))
    return tl.reshape(matrix, (UNITS * PARTS * WARPS, BLOCK_N, SLOTS * DEEP * 4))


@triton.jit
def over_sums(
    factor,
    TILES: tl.constexpr,
    UNITS: tl.constexpr,
    WARPS: tl.constexpr,
    PARTS: tl.constexpr,
    OWN_SCALES: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Lays the factors of groups out over the sums that they belong to."""
    TWO: tl.constexpr = OWN_SCALES // PARTS  # for a lane's two columns, each its own
    each = tl.reshape(factor, (TILES * 2, UNITS, WARPS, 8, 1, 4, PARTS, TWO))
    each = tl.broadcast_to(each, (TILES * 2, UNITS, WARPS, 8, HALVES, 4, PARTS, 2))
    each = tl.permute(each, (1, 6, 2, 0, 3, 4, 5, 7))
    return tl.reshape(each, (UNITS * PARTS * WARPS, TILES * 16, HALVES * 8))
