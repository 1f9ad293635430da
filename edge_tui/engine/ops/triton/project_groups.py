"""Multiplies up to sixteen tokens by a matrix of codes in groups, as dot products on tensor cores.

A word holds four or eight codes; masked and joined with `0x43004300`, two of them at a time are a pair of
bfloat16 `128 + q` (of float16 `1024 + q` with `0x64006400`): one instruction for two codes, no conversion, no
table. A code of eight bits is two digits of four, `q = 16·h + l`, each with products of its own. The constant
leaves with the subtrahend once a group, `S·Σ(c + q)·x − (c·S + M)·Σx`, and Σx is a product with ones.

Rows, chunks, lanes and warps lie as in `project_tensor`, and tokens, norm, gate and residual are treated
alike; what `project` says of dependent launch and reproducible sums holds too. `code_groups.pack` lays the
codes out: a lane loads 16 bytes of a row, and each of their words is, over four lanes, one group or a part of
one, so sums of each group stay apart until its scale has come over them.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, index, possibly-undefined"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.group_form import OUTER
from edge_tui.engine.ops.triton.launch import COMPILED, after_others, chain
from edge_tui.engine.ops.triton.project_tensor import finish, own_rows, pairs, tile_rows

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.packed import PackedMatrix
    from edge_tui.engine.ops.triton.project_configs import Config

LEAST = {"none": 0, "own": 1, "zero": 2}
"""Numbers of `GroupForm.least` for kernels."""
NONE, OWN = (tl.constexpr(LEAST[name]) for name in ("none", "own"))
_SPAN = tl.constexpr(OUTER)
_PAIR_BF16 = tl.constexpr("lop3.b32 $0, $1, 0x000F000F, 0x43004300, 0xEA;")
_PAIR_FP16 = tl.constexpr("lop3.b32 $0, $1, 0x000F000F, 0x64006400, 0xEA;")
"""`a & b | c` in one instruction, of which the compiler makes two."""


@triton.jit
def _digits(words, SHIFT: tl.constexpr, DTYPE: tl.constexpr):
    """Makes a pair of 16-bit numbers of the two digits from bits `SHIFT` and `SHIFT + 16` of each word on."""
    MARK: tl.constexpr = 0x64006400 if tl.float16 == DTYPE else 0x43004300
    if not COMPILED:
        return words >> SHIFT & 0x000F000F | MARK
    elif tl.float16 == DTYPE:
        return tl.inline_asm_elementwise(_PAIR_FP16, "=r,r", [words >> SHIFT], tl.int32, is_pure=True, pack=1)
    else:
        return tl.inline_asm_elementwise(_PAIR_BF16, "=r,r", [words >> SHIFT], tl.int32, is_pure=True, pack=1)


@triton.jit
def _halves(words, FLOAT: tl.constexpr):
    """Splits words of two numbers into the first and the second, as float32."""
    if FLOAT:
        low = words.to(tl.int16).to(tl.float16, bitcast=True)
        return low.to(tl.float32), (words >> 16).to(tl.int16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        return words.to(tl.int8).to(tl.float32), (words >> 8).to(tl.int8).to(tl.float32)


@triton.jit
def stored_factors(scale, outer, LEAST: tl.constexpr, OUTER: tl.constexpr):
    """Returns S of groups, and what is stored of M, float32; without any, 0."""
    least = 0.0
    if LEAST == NONE:
        s = scale.to(tl.float32)
        if OUTER:
            s *= outer.to(tl.float32)
    else:
        s, least = _halves(scale, not OUTER)
        if OUTER:
            outer_s, outer_least = _halves(outer, True)
            s *= outer_s
            least *= outer_least
    return s, least


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
    eps,
    width,  # of `out`
    tokens,
    K: tl.constexpr,
    SPAN: tl.constexpr,  # words of a row
    HALVES: tl.constexpr,  # of 16 tokens, whether there or not
    DTYPE: tl.constexpr,  # of the tokens
    BITS: tl.constexpr,
    GROUP: tl.constexpr,
    LEAST: tl.constexpr,
    GATE: tl.constexpr,
    DEPENDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CHUNKS: tl.constexpr,  # of a warp in one tile
    WARPS: tl.constexpr,
):
    """Multiplies `BLOCK_N` rows of the matrix by up to 8 · `HALVES` tokens; the grid is the blocks of rows.

    The other arguments are those of `project.project`.
    """
    # The interpreter rounds bfloat16 down, and multiplies its bits.
    FLOAT: tl.constexpr = DTYPE if COMPILED else tl.float32
    TILES: tl.constexpr = BLOCK_N // 16
    CODES: tl.constexpr = 32 // BITS  # of a word
    STEPS: tl.constexpr = CODES // 4  # of 16 columns that a tensor core takes
    CHUNK: tl.constexpr = 16 * CODES  # columns of four lanes with four words each
    PARTS: tl.constexpr = CHUNK // GROUP if CHUNK > GROUP else 1  # of a chunk, with scales of their own
    WORDS: tl.constexpr = 4 // PARTS
    BATCH: tl.constexpr = PARTS * CHUNKS * WARPS
    STRIDE: tl.constexpr = CHUNKS * WARPS  # chunks of a tile
    TOTAL: tl.constexpr = SPAN // 16  # chunks of a row
    SPANS: tl.constexpr = (TOTAL * CHUNK + _SPAN - 1) // _SPAN
    # An fp16 token times the norm's weight needs room above; its norm comes at the end.
    ROOM: tl.constexpr = 1.0 / 32 if tl.float16 == DTYPE else 1.0
    PLUS: tl.constexpr = 1024 if tl.float16 == DTYPE else 128  # to each digit
    BASE: tl.constexpr = PLUS if BITS == 4 else 17 * PLUS

    # A tile lies as [16 rows, half of them, chunk, warp, row; lane, word], folded into two axes.
    line = tl.arange(0, BLOCK_N * STRIDE)
    chunk = (line // 8 % STRIDE)[:, None]
    row = tile_rows(line, width, GATE, BLOCK_N, STRIDE)
    word = tl.multiple_of(tl.arange(0, 16), 4)[None, :]
    rows = weight + row * SPAN
    there = chunk < TOTAL
    tile = tl.load(rows + (chunk * 16 + word), mask=there, other=0, eviction_policy="evict_first")
    # All four lanes load the scales of their row.
    if PARTS == 1:  # said to be contiguous so that they lie along it
        part = tl.max_contiguous(tl.multiple_of(tl.arange(0, 4) // 4, 1), 2)[None, :]
    else:
        part = tl.max_contiguous(tl.multiple_of(tl.arange(0, 4 * PARTS) % PARTS, PARTS), PARTS)[None, :]
    same = tl.max_contiguous(tl.multiple_of(tl.arange(0, 4) // 4, 1), 2)[None, :]
    scales = scale + row * (TOTAL * CHUNK // GROUP)
    factor = tl.load(scales + (chunk * CHUNK // GROUP + part), mask=there, other=0)
    wide = 0.0
    if outer is not None:
        outers = outer + row * SPANS
        wide = tl.load(outers + (chunk * CHUNK // _SPAN + same), mask=there, other=0)
    after_others(DEPENDENT)

    # Tokens lie as [half, word, chunk, warp, token; lane, two columns].
    line = tl.arange(0, HALVES * 4 * STRIDE * 8)
    token = (line // (32 * STRIDE) * 8 + line % 8)[:, None]
    pair = line // 8 % STRIDE * (CHUNK // 2) + line // (8 * STRIDE) % 4 * (2 * CODES)
    two = tl.arange(0, 2 * CODES)
    pair = pair[:, None] + tl.max_contiguous(tl.multiple_of(two, CODES // 2), CODES // 2)[None, :]
    value = tl.load(x + token * (K // 2) + pair, mask=(token < tokens) & (pair < K // 2), other=0)
    gain = 0
    squares = 0.0
    if norm is not None:
        gain = tl.load(norm + pair, mask=pair < K // 2, other=0)
        squares = tl.zeros((HALVES, WARPS, 8, 4), tl.float32)
    sums = tl.zeros((BATCH, BLOCK_N, HALVES * 8), tl.float32)
    ones = tl.full((BATCH, BLOCK_N, WORDS * STEPS * 16), 1.0, FLOAT)

    for at in range(0, TOTAL, STRIDE):
        coming = at + STRIDE + chunk
        there = coming < TOTAL
        ahead = tl.load(rows + (coming * 16 + word), mask=there, other=0, eviction_policy="evict_first")
        factor_ahead = tl.load(scales + (coming * CHUNK // GROUP + part), mask=there, other=0)
        wide_ahead = 0.0
        if outer is not None:
            wide_ahead = tl.load(outers + (coming * CHUNK // _SPAN + same), mask=there, other=0)
        next_pair = (at + STRIDE) * (CHUNK // 2) + pair
        value_ahead = tl.load(
            x + token * (K // 2) + next_pair, mask=(token < tokens) & (next_pair < K // 2), other=0
        )
        gain_ahead = 0
        x_tile = pairs(value, DTYPE)
        if norm is not None:
            gain_ahead = tl.load(norm + next_pair, mask=next_pair < K // 2, other=0)
            loud = x_tile.to(tl.float32)
            square = tl.reshape(loud * loud, (HALVES, 4 * CHUNKS, WARPS, 8, 4, CODES))
            squares += tl.sum(tl.sum(square, axis=5), axis=1)
            x_tile = (loud * (pairs(gain, DTYPE).to(tl.float32) * ROOM)).to(FLOAT)
        x_tile = tl.reshape(x_tile, (HALVES, PARTS, WORDS, CHUNKS, WARPS, 8, 4, STEPS, 4))
        x_tile = tl.permute(x_tile, (1, 3, 4, 2, 7, 6, 8, 0, 5))
        x_tile = tl.reshape(x_tile, (BATCH, WORDS * STEPS * 16, HALVES * 8))
        if not COMPILED:
            x_tile = x_tile.to(tl.float32)
        # Two digits a word and shift: those of bits 0, 8 … are the first half of the columns, then 4, 12 …
        if BITS == 4:
            first = tl.join(_digits(tile, 0, DTYPE), _digits(tile, 8, DTYPE))
            second = tl.join(_digits(tile, 4, DTYPE), _digits(tile, 12, DTYPE))
            matrix = _matrix(tl.join(first, second), DTYPE, FLOAT, TILES, CHUNKS, WARPS, PARTS, STEPS)
            products = tl.dot(matrix, x_tile)
        else:
            low = tl.join(_digits(tile, 0, DTYPE), _digits(tile, 8, DTYPE))
            high = tl.join(_digits(tile, 4, DTYPE), _digits(tile, 12, DTYPE))
            matrix = _matrix(high, DTYPE, FLOAT, TILES, CHUNKS, WARPS, PARTS, STEPS)
            products = tl.dot(matrix, x_tile) * 16.0
            matrix = _matrix(low, DTYPE, FLOAT, TILES, CHUNKS, WARPS, PARTS, STEPS)
            products = tl.dot(matrix, x_tile, products)
        each = wide
        if outer is not None:
            each = tl.broadcast_to(wide[:, :, None], (BLOCK_N * STRIDE, 4, PARTS))
            each = tl.reshape(each, (BLOCK_N * STRIDE, 4 * PARTS))
        s, least = stored_factors(factor, each, LEAST, outer is not None)
        if LEAST == NONE:
            least = s * (BASE + (1 << (BITS - 1)))
        elif LEAST == OWN:
            least = s * BASE + least
        else:
            least = s * (BASE + least)
        s = _over_sums(s, TILES, CHUNKS, WARPS, PARTS, HALVES)
        least = _over_sums(least, TILES, CHUNKS, WARPS, PARTS, HALVES)
        sums += products * s
        sums -= tl.dot(ones, x_tile) * least
        tile = ahead
        factor = factor_ahead
        wide = wide_ahead
        value = value_ahead
        gain = gain_ahead

    place, own = own_rows(width, GATE, BLOCK_N)
    finish(
        tl.sum(sums, axis=0),
        place,
        own,
        squares,
        bias,
        norm,
        residual,
        out,
        eps,
        width,
        tokens,
        K,
        HALVES,
        ROOM,
        GATE,
        BLOCK_N,
    )


@triton.jit
def _matrix(
    words,
    DTYPE: tl.constexpr,
    FLOAT: tl.constexpr,
    TILES: tl.constexpr,
    CHUNKS: tl.constexpr,
    WARPS: tl.constexpr,
    PARTS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """Lays digits out as matrices for tensor cores, one for each group, chunk and warp."""
    WORDS: tl.constexpr = 4 // PARTS
    matrix = pairs(words, DTYPE).to(FLOAT)
    matrix = tl.reshape(matrix, (TILES, 2, CHUNKS, WARPS, 8, 4, PARTS, WORDS * STEPS, 4))
    matrix = tl.permute(matrix, (6, 2, 3, 0, 1, 4, 7, 5, 8))
    return tl.reshape(matrix, (PARTS * CHUNKS * WARPS, TILES * 16, WORDS * STEPS * 16))


@triton.jit
def _over_sums(
    factor,
    TILES: tl.constexpr,
    CHUNKS: tl.constexpr,
    WARPS: tl.constexpr,
    PARTS: tl.constexpr,
    HALVES: tl.constexpr,
):
    """Lays the factors of groups out over the sums that they belong to."""
    each = tl.reshape(factor, (TILES, 2, CHUNKS, WARPS, 8, 1, 4, PARTS, 1))
    each = tl.broadcast_to(each, (TILES, 2, CHUNKS, WARPS, 8, HALVES, 4, PARTS, 2))
    each = tl.permute(each, (7, 2, 3, 0, 1, 4, 5, 6, 8))
    return tl.reshape(each, (PARTS * CHUNKS * WARPS, TILES * 16, HALVES * 8))


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
    gate: bool,
    residual: Tensor | None,
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
        config: A cut for tensor cores, its `block_k` a multiple of the warps' chunks.
    """
    form = packed.form
    assert form is not None
    assert packed.scale is not None
    tokens, columns = x.shape
    width = packed.rows // 2 if gate else packed.rows
    constants: dict[str, Any] = {
        "K": columns,
        "SPAN": packed.weight.shape[1],
        "HALVES": triton.cdiv(tokens, 8),
        "DTYPE": {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[x.dtype],
        "BITS": form.bits,
        "GROUP": form.group,
        "LEAST": LEAST[form.least],
        "GATE": gate,
        "BLOCK_N": config.block_n,
        "CHUNKS": max(config.block_k // (config.warps * form.chunk), 1),
        "WARPS": config.warps,
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
        eps,
        width,
        tokens,
        **constants,
        **chain(x.device),
    )
