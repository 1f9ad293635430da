"""Multiplies up to sixteen tokens by a matrix of codes in groups, as dot products on tensor cores.

A word holds four or eight codes; masked, two of them at a time are a pair of 16-bit numbers, `q` times the
least one, up to the second exponent: one instruction for two codes, no conversion, no table. bfloat16 would
leave too little room below such products, so its tokens are multiplied by 2⁶⁴ first, and sums by what undoes
both in the end. The subtrahend leaves once a group, `S·Σq·x − M·Σx`, and Σx is a product with a constant.

An `m16n8k16` product has eight columns, of which one token needs one. So a token has several, its slots: each
holds the token in the words of one slot, and zeros elsewhere. One chain of products then runs over all slots
into sums that keep groups apart, and each lane scales sums of its own, once for the whole chain. One token
has eight slots, four have two.

NF4 takes the same way with levels for pairs, which no constant has to leave (`level_pairs`).

Rows, chunks, lanes and warps lie as in `project_tensor`, and gate, residual and the norm's scale are treated
alike; what `project` says of dependent launch and reproducible sums holds too. `code_groups.pack` lays the
codes out: a lane loads 16 bytes of a row, and each of their words is, over four lanes, one group or a part of
one.

Every program computes the norm of all that it multiplies. For one token that costs less than a kernel of its
own; for four, 6 µs of the 32 that gate and up of Qwen2-7B take on an H200, because each program has few
weights to a token. So several tokens have their norm from a kernel before the product.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, index, possibly-undefined"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.group_form import OUTER
from edge_tui.engine.ops.triton.group_layout import masked, over_sums, scaled, tokens_matrix, weights_matrix
from edge_tui.engine.ops.triton.launch import COMPILED, after_others, chain
from edge_tui.engine.ops.triton.level_pairs import (
    LEVEL_BF16,
    LEVEL_FP16,
    ROOM_BF16,
    level_pairs,
    level_tables,
    load_tables,
)
from edge_tui.engine.ops.triton.norms import norm_tokens
from edge_tui.engine.ops.triton.project_codes import (
    LEAST,
    LOWERED_BF16,
    NONE,
    OWN,
    UNIT_BF16,
    UNIT_FP16,
    code_pairs,
    stored_factors,
)
from edge_tui.engine.ops.triton.project_tensor import finish, own_rows, pairs, tile_rows

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.packed import PackedMatrix
    from edge_tui.engine.ops.triton.project_configs import Config

INSIDE = 1
"""Most tokens whose norm a product computes itself."""
_SPAN = tl.constexpr(OUTER)


@triton.jit(do_not_specialize=["tokens"])
def project_groups_on_tensor_cores(
    x,  # and `norm`: words of two numbers
    weight,
    scale,  # one element a group: its scale, or scale and subtrahend side by side
    outer,  # likewise, or None
    bias,
    norm,
    residual,
    out,
    tables,  # of `level_pairs`, or None: codes are numbers
    eps,
    multiplier,
    cap,
    width,  # of `out`
    tokens,
    K: tl.constexpr,
    SPAN: tl.constexpr,  # words of a row
    TOKENS: tl.constexpr,  # a power of two, whether all are there or not
    DTYPE: tl.constexpr,  # of the tokens
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    LEAST: tl.constexpr,
    GATE: tl.constexpr,
    DEPENDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    UNITS: tl.constexpr,  # of a warp in one tile
    WARPS: tl.constexpr,
    AHEAD: tl.constexpr,  # tiles on their way while one is used, 1 or 2
):
    """Multiplies `BLOCK_N` rows of the matrix by up to `TOKENS` tokens; the grid is the blocks of rows.

    The other arguments are those of `project.project`.
    """
    # The interpreter rounds bfloat16 down, and multiplies its bits.
    FLOAT: tl.constexpr = DTYPE if COMPILED else tl.float32
    HALVES: tl.constexpr = (TOKENS + 7) // 8
    SLOTS: tl.constexpr = 8 * HALVES // TOKENS  # columns of a product that a token has
    CODES: tl.constexpr = 32 // BITS  # of a word
    CHUNK: tl.constexpr = 16 * CODES  # columns of four lanes with four words each
    SIDE: tl.constexpr = 2 if SLOTS == 8 else 1  # chunks of a unit
    SHARE: tl.constexpr = GROUP // (4 * CODES)  # words of a group, in each of four lanes
    RUN: tl.constexpr = min(SHARE, max(4 // SLOTS, 1))  # words of a slot
    PARTS: tl.constexpr = 4 * SIDE // (SLOTS * RUN)  # of a unit, with sums of their own
    OWN_SCALES: tl.constexpr = 2 if SLOTS == 8 and SHARE == 1 else PARTS  # of a lane, for a row of a unit
    TILES: tl.constexpr = BLOCK_N // 16
    BATCH: tl.constexpr = UNITS * PARTS * WARPS
    DEPTH: tl.constexpr = SLOTS * RUN * 4 * CODES  # columns of a product
    TOTAL: tl.constexpr = SPAN // 16  # chunks of a row
    GROUPS: tl.constexpr = TOTAL * CHUNK // GROUP
    SPANS: tl.constexpr = (TOTAL * CHUNK + _SPAN - 1) // _SPAN
    STRIDE: tl.constexpr = UNITS * WARPS
    # An fp16 token times the norm's weight needs room above; its norm comes at the end.
    ROOM: tl.constexpr = 1.0 / 32 if tl.float16 == DTYPE else 1.0
    ONE: tl.constexpr = 0x3C003C00 if tl.float16 == DTYPE else ROOM_BF16  # twice
    # What a raised pair has too much, its tokens have too little, for which float16 has no room. With one
    # token a lane built for Hopper needs 128 registers then, instead of 96.
    RAISED: tl.constexpr = BITS == 4 and TOKENS > 1 and tables is None and tl.bfloat16 == DTYPE
    UNIT: tl.constexpr = UNIT_FP16 if tl.float16 == DTYPE else UNIT_BF16
    ZERO: tl.constexpr = 1 << (BITS - 1)  # the code of weight 0 where no subtrahend is stored

    # A tile lies as [16 rows, half of them, unit, chunk, warp, row; lane, word], folded into two axes.
    line = tl.arange(0, BLOCK_N * STRIDE * SIDE)
    row = tile_rows(line, width, GATE, BLOCK_N, STRIDE * SIDE)
    unit = line // (8 * WARPS * SIDE) % UNITS * WARPS + line // 8 % WARPS
    chunk = (unit * SIDE + line // (8 * WARPS) % SIDE)[:, None]
    word = tl.multiple_of(tl.arange(0, 16), 4)[None, :]
    rows = weight + row * SPAN
    tile = tl.load(rows + (chunk * 16 + word), mask=chunk < TOTAL, other=0, eviction_policy="evict_first")
    if AHEAD == 2:
        coming = STRIDE * SIDE + chunk
        ahead = tl.load(
            rows + (coming * 16 + word), mask=coming < TOTAL, other=0, eviction_policy="evict_first"
        )
    # Scales lie as [16 rows, half of them, unit, warp, row; lane, its own].
    line = tl.arange(0, BLOCK_N * STRIDE)
    row = tile_rows(line, width, GATE, BLOCK_N, STRIDE)
    unit = (line // 8 % STRIDE)[:, None]
    own = tl.arange(0, 4 * OWN_SCALES)
    if SLOTS == 8:
        own = own // OWN_SCALES * 2 // SHARE + own % OWN_SCALES
    else:
        own = own // OWN_SCALES * SLOTS // 4 * PARTS * RUN // SHARE + own % OWN_SCALES
    if OWN_SCALES == 1:  # said to be contiguous so that lanes lie along it
        own = tl.max_contiguous(tl.multiple_of(own, 1), 2)[None, :]
    else:
        own = tl.max_contiguous(tl.multiple_of(own, OWN_SCALES), OWN_SCALES)[None, :]
    same = tl.max_contiguous(tl.multiple_of(tl.arange(0, 4) // 4, 1), 2)[None, :]
    group = unit * (SIDE * CHUNK) // GROUP + own
    # Triton 3.6 folds `own` of Q8_0 and NF4 and forgets what is said of it: their scales pass through shared
    # memory, with two barriers a round. Q8_0 is 5 to 9 % quicker so on an H200; NF4 is measured without.
    if OWN_SCALES == 1 and tables is not None:
        group = tl.max_contiguous(tl.multiple_of(group, (1, 1)), (1, 2))
    scales = scale + row * GROUPS
    factor = tl.load(scales + group, mask=group < GROUPS, other=0)
    wide = 0.0
    if outer is not None:
        outers = outer + row * SPANS
        span = unit * (SIDE * CHUNK) // _SPAN + same
        wide = tl.load(outers + span, mask=span < SPANS, other=0)
    if tables is not None:
        levels = load_tables(tables)
    after_others(DEPENDENT)

    # Tokens lie as [half, unit, part, word of a slot, warp, column of the product; lane, two columns].
    line = tl.arange(0, HALVES * BATCH * RUN * 8)
    place = line % 8
    token = (line // (BATCH * RUN * 8) * 8 + place % (8 // SLOTS))[:, None]
    unit = line // (8 * WARPS * RUN * PARTS) % UNITS * WARPS + line // 8 % WARPS
    run = place // (8 // SLOTS) * (PARTS * RUN) + line // (8 * WARPS) % (PARTS * RUN)
    two = tl.arange(0, 2 * CODES)
    two = tl.max_contiguous(tl.multiple_of(two, CODES // 2), CODES // 2)
    pair = (unit * (SIDE * CHUNK // 2) + run * (2 * CODES))[:, None] + two[None, :]
    value = tl.load(x + token * (K // 2) + pair, mask=(token < tokens) & (pair < K // 2), other=0)
    gain = 0
    squares = 0.0
    if norm is not None:
        gain = tl.load(norm + pair, mask=pair < K // 2, other=0)
        squares = tl.zeros((HALVES, WARPS, 8, 4), tl.float32)
    sums = tl.zeros((BATCH, BLOCK_N, HALVES * 8), tl.float32)
    if tables is None:
        # Triton makes constants of bfloat16 from six decimals.
        base = tl.full((BATCH, 16, DEPTH // SLOTS), -ZERO * UNIT, tl.float32).to(FLOAT)
    slot = tl.reshape(tl.arange(0, SLOTS), (1, SLOTS, 1, 1, 1))
    here = ONE
    if RAISED:
        here = tl.reshape(tl.where(two % 2 == 1, LOWERED_BF16, ONE), (1, 1, 1, 1, 2 * CODES))
    here = tl.where(slot == tl.reshape(tl.arange(0, 8) // (8 // SLOTS), (1, 1, 1, 8, 1)), here, 0)

    for at in range(0, TOTAL, STRIDE * SIDE):
        coming = at + AHEAD * STRIDE * SIDE + chunk
        last = tl.load(
            rows + (coming * 16 + word), mask=coming < TOTAL, other=0, eviction_policy="evict_first"
        )
        next_group = (at + STRIDE * SIDE) * CHUNK // GROUP + group
        factor_ahead = tl.load(scales + next_group, mask=next_group < GROUPS, other=0)
        wide_ahead = 0.0
        if outer is not None:
            next_span = (at + STRIDE * SIDE) * CHUNK // _SPAN + span
            wide_ahead = tl.load(outers + next_span, mask=next_span < SPANS, other=0)
        next_pair = (at + STRIDE * SIDE) * (CHUNK // 2) + pair
        value_ahead = tl.load(
            x + token * (K // 2) + next_pair, mask=(token < tokens) & (next_pair < K // 2), other=0
        )
        gain_ahead = 0
        if norm is not None:
            gain_ahead = tl.load(norm + next_pair, mask=next_pair < K // 2, other=0)
            loud = pairs(value, DTYPE).to(tl.float32)
            square = tl.reshape(loud * loud, (HALVES, UNITS * PARTS * RUN, WARPS, 8, 4, CODES))
            squares += tl.sum(tl.sum(square, axis=5), axis=1)
            value = scaled(value, gain, DTYPE)
        each = tl.reshape(value, (HALVES * UNITS * PARTS * RUN, 1, WARPS, 8, 2 * CODES))
        if tables is None:
            x_tile = tokens_matrix(each, DTYPE, HALVES, UNITS, WARPS, PARTS, RUN)
            marks = tl.reshape(tl.dot(base, x_tile), (BATCH, 1, 16, HALVES * 8))
            marks = tl.broadcast_to(marks, (BATCH, TILES, 16, HALVES * 8))
            marks = tl.reshape(marks, (BATCH, BLOCK_N, HALVES * 8))
        # In the columns of another slot there are zeros.
        x_tile = tokens_matrix(masked(each, here, DTYPE), DTYPE, HALVES, UNITS, WARPS, PARTS, RUN)
        if tables is not None:
            matrix = level_pairs(tile, levels, DTYPE)
            matrix = weights_matrix(matrix, DTYPE, FLOAT, UNITS, SIDE, WARPS, SLOTS, PARTS)
            products = tl.dot(matrix, x_tile)
        else:
            matrix = weights_matrix(
                code_pairs(tile, BITS, RAISED), DTYPE, FLOAT, UNITS, SIDE, WARPS, SLOTS, PARTS
            )
            products = tl.dot(matrix, x_tile, marks if LEAST == NONE else None)
        each = wide
        if outer is not None:
            each = tl.broadcast_to(wide[:, :, None], (BLOCK_N * STRIDE, 4, OWN_SCALES))
            each = tl.reshape(each, (BLOCK_N * STRIDE, 4 * OWN_SCALES))
        s, least = stored_factors(factor, each, LEAST, outer is not None)
        s = over_sums(s, TILES, UNITS, WARPS, PARTS, OWN_SCALES, HALVES)
        if LEAST == NONE:
            sums += products * s
        else:
            least = over_sums(least * (1.0 / ZERO), TILES, UNITS, WARPS, PARTS, OWN_SCALES, HALVES)
            if LEAST == OWN:
                sums += products * s
                sums += marks * least
            else:
                sums += (products + marks * least) * s
        if AHEAD == 2:
            tile = ahead
            ahead = last
        else:
            tile = last
        factor = factor_ahead
        wide = wide_ahead
        value = value_ahead
        gain = gain_ahead

    y = tl.sum(tl.reshape(sums, (UNITS * PARTS, WARPS, BLOCK_N, HALVES, SLOTS, TOKENS // HALVES)), axis=0)
    y = tl.reshape(tl.sum(tl.sum(y, axis=3), axis=0), (BLOCK_N, TOKENS))
    if tables is not None:
        y *= LEVEL_FP16 if tl.float16 == DTYPE else LEVEL_BF16
    else:
        y *= 1.0 / UNIT
    size = 0.0
    if norm is not None:
        size = tl.reshape(tl.sum(tl.sum(squares, axis=3), axis=1), (HALVES, SLOTS, TOKENS // HALVES))
        size = tl.reshape(tl.sum(size, axis=1), (TOKENS,))
    place, own = own_rows(width, GATE, BLOCK_N)
    finish(
        y,
        place,
        own,
        size,
        bias,
        norm,
        residual,
        out,
        eps,
        multiplier,
        cap,
        width,
        tokens,
        K,
        TOKENS,
        ROOM,
        GATE,
        BLOCK_N,
    )


_SIDE_BY_SIDE = {1: torch.int16, 2: torch.int32}
"""Holds two numbers of so many bytes."""


def elements(factors: Tensor) -> Tensor:
    """Views `[N, groups, 1 or 2]` as `[N, groups]`: two numbers of a group become one element."""
    if factors.shape[2] == 1:
        return factors[..., 0]
    return factors.view(_SIDE_BY_SIDE[factors.dtype.itemsize])[..., 0]


def project_groups(
    x: Tensor,
    packed: PackedMatrix,
    out: Tensor,
    norm: Tensor | None,
    eps: float,
    gate: str,
    residual: Tensor | None,
    end: tuple[float | None, float | None],
    config: Config,
) -> None:
    """Computes `project.project` for a matrix of codes in groups.

    Args:
        x: `[T, K]`, bfloat16 or float16.
        packed: The matrix, as `code_groups.pack` lays it out.
        out: As there, with the other arguments.
        norm: …
        eps: …
        gate: …
        residual: …
        end: Factor and cap; None leaves either out.
        config: A cut for tensor cores, its `block_k` a multiple of the warps' chunks.
    """
    form = packed.form
    assert form is not None
    assert packed.scale is not None
    tokens, columns = x.shape
    if norm is not None and tokens > INSIDE:
        x, norm = norm_tokens(x, norm, eps), None
    width = packed.rows // 2 if gate else packed.rows
    constants: dict[str, Any] = {
        "K": columns,
        "SPAN": packed.weight.shape[1],
        "TOKENS": triton.next_power_of_2(tokens),
        "DTYPE": {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[x.dtype],
        "BITS": form.bits,
        "GROUP": form.group,
        "LEAST": LEAST[form.least],
        "GATE": gate,
        "BLOCK_N": config.block_n,
        "UNITS": max(config.block_k // (config.warps * form.chunk * (2 if tokens == 1 else 1)), 1),
        "WARPS": config.warps,
        "AHEAD": config.ahead,
        "num_warps": config.warps,
        "num_stages": 1,
    }
    grid = (triton.cdiv(width, config.block_n // (2 if gate else 1)),)
    project_groups_on_tensor_cores[grid](
        x.view(torch.int32),
        packed.weight,
        elements(packed.scale),
        None if packed.outer is None else elements(packed.outer),
        packed.bias,
        None if norm is None else norm.view(torch.int32),
        residual,
        out,
        level_tables(x.device) if form.levels else None,
        eps,
        *end,
        width,
        tokens,
        **constants,
        **chain(x.device),
    )
