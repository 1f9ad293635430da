"""Computes `project` for several tokens as dot products on tensor cores.

An `m16n8k16` product takes 16 matrix rows and 8 tokens, so up to eight tokens cost what one does. Neither
operand passes through shared memory: a sum over columns may take them in any order, so each lane loads 16
bytes of a row as they lie there and hands them on as the columns that the instruction expects from it. Four
lanes share a row of such a chunk, eight rows lie side by side, and the tokens are laid out alike.

The warps of a program share its rows and split the columns. Each chunk of a tile has sums of its own, which
keeps the products independent. What is said in `triton.project` of the norm, of dependent launch and of
reproducible sums holds here too. Codes in groups have a kernel of their own (`project_groups`).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

import triton
import triton.language as tl

from edge_tui.engine.ops.triton.epilogue import activated, scaled_and_capped
from edge_tui.engine.ops.triton.launch import COMPILED, after_others
from edge_tui.engine.ops.triton.project_codes import INT8, PLAIN, unpack

CHUNK = {"plain": 32, "int8": 64}
"""Columns of a warp's smallest share of a tile."""


@triton.jit
def pairs(words, DTYPE: tl.constexpr):
    """Splits each word into two 16-bit numbers, side by side along a new last axis."""
    if not COMPILED and tl.bfloat16 == DTYPE:  # the interpreter misreads subnormal numbers
        low = (words << 16).to(tl.float32, bitcast=True)
        high = (words & -0x10000).to(tl.float32, bitcast=True)
    else:
        low = words.to(tl.int16).to(DTYPE, bitcast=True)
        high = (words >> 16).to(tl.int16).to(DTYPE, bitcast=True)
    return tl.join(low, high)


@triton.jit
def _matrix(tile, DTYPE: tl.constexpr, FLOAT: tl.constexpr, CODES: tl.constexpr):
    """Unpacks the weights of a tile, the codes of a word side by side along the last axis."""
    if CODES == PLAIN:
        return pairs(tile, DTYPE)
    else:
        w = unpack(tile, CODES)
        even = tl.join(w[0].to(FLOAT), w[2].to(FLOAT))
        odd = tl.join(w[1].to(FLOAT), w[3].to(FLOAT))
        return tl.join(even, odd)


@triton.jit
def tile_rows(line, width, GATE: tl.constexpr, BLOCK_N: tl.constexpr, STRIDE: tl.constexpr):
    """Returns the matrix rows of a tile's lines, int64 `[…, 1]`; `STRIDE` is its chunks, of all warps."""
    if GATE != "":  # a gate row eight before its up row, which is in the same lane
        row = line // (16 * STRIDE) * 8 + line % 8
        row = tl.minimum(tl.program_id(0) * (BLOCK_N // 2) + row, width - 1)
        row += line // (8 * STRIDE) % 2 * width
    else:
        row = line // (8 * STRIDE) * 8 + line % 8
        row = tl.minimum(tl.program_id(0) * BLOCK_N + row, width - 1)
    return row.to(tl.int64)[:, None]


@triton.jit
def own_rows(width, GATE: tl.constexpr, BLOCK_N: tl.constexpr):
    """Returns the columns of `out` that a program's sums belong to, and their matrix rows: `[BLOCK_N]`."""
    r = tl.arange(0, BLOCK_N)
    if GATE != "":
        at = tl.program_id(0) * (BLOCK_N // 2) + r // 16 * 8 + r % 8
        own = tl.minimum(at, width - 1) + r % 16 // 8 * width
    else:
        at = tl.program_id(0) * BLOCK_N + r
        own = tl.minimum(at, width - 1)
    return at, own


@triton.jit
def finish(
    y,
    at,
    own,
    size,  # sums of squares `[TOKENS]`, before the norm
    bias,
    norm,
    residual,
    out,
    eps,
    multiplier,
    cap,
    width,
    tokens,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROOM: tl.constexpr,  # what tokens were multiplied by to leave it
    GATE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Applies norm, bias, gate, factor, cap and residual to sums `[BLOCK_N, TOKENS]`, and stores them."""
    TILES: tl.constexpr = BLOCK_N // 16
    t = tl.arange(0, TOKENS)
    if norm is not None:
        y *= (tl.rsqrt(size / K + eps) * (1.0 / ROOM))[None, :]
    if bias is not None:
        y += tl.load(bias + own).to(tl.float32)[:, None]
    if GATE != "":
        both = tl.permute(tl.reshape(y, (TILES, 2, 8, TOKENS)), (0, 2, 3, 1))
        gate, up = tl.split(both)
        y = tl.reshape(activated(gate, GATE) * up, (BLOCK_N // 2, TOKENS))
        at = tl.program_id(0) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
    place = t[None, :] * width + at[:, None]
    inside = (t < tokens)[None, :] & (at < width)[:, None]
    y = scaled_and_capped(y, multiplier, cap)
    if residual is not None:
        y += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def project_on_tensor_cores(
    x,
    weight,
    scale,
    bias,
    norm,
    residual,
    out,
    eps,
    multiplier,
    cap,
    width,  # of `out`
    tokens,
    K: tl.constexpr,
    HALVES: tl.constexpr,  # of 16 tokens, whether there or not
    DTYPE: tl.constexpr,  # of the tokens, which come as words of two
    CODES: tl.constexpr,
    GATE: tl.constexpr,
    DEPENDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    CHUNKS: tl.constexpr,  # of a warp in one tile
    WARPS: tl.constexpr,
):
    """Multiplies `BLOCK_N` rows of the matrix by up to 8 · `HALVES` tokens; the grid is the blocks of rows.

    The arguments are those of `project`, with rows of `out` `width` apart.
    """
    # The interpreter rounds bfloat16 down, and multiplies its bits.
    FLOAT: tl.constexpr = DTYPE if COMPILED else tl.float32
    TILES: tl.constexpr = BLOCK_N // 16
    LANE: tl.constexpr = 8 if CODES == PLAIN else 16  # weights of a chunk that a lane holds
    CHUNK: tl.constexpr = 4 * LANE
    PACKED: tl.constexpr = 2 if CODES == PLAIN else CODES  # weights of a word
    WORDS: tl.constexpr = LANE // PACKED
    SPAN: tl.constexpr = K // PACKED
    BLOCK_K: tl.constexpr = WARPS * CHUNKS * CHUNK
    # An fp16 token times the norm's weight needs room above; its norm comes at the end.
    ROOM: tl.constexpr = 1.0 / 32 if tl.float16 == DTYPE else 1.0

    # A tile lies as [16 rows, half of them, chunk, warp, row; lane, word], folded into two axes: Triton
    # spreads four lanes over the second and eight over the first, then warps over it, then registers.
    line = tl.arange(0, BLOCK_N * CHUNKS * WARPS)
    chunk = (line // 8) % (CHUNKS * WARPS)
    row = tile_rows(line, width, GATE, BLOCK_N, CHUNKS * WARPS)
    # What a lane holds of a chunk, no more.
    word = tl.multiple_of(tl.arange(0, 4 * WORDS), WORDS)[None, :] + (chunk * (4 * WORDS))[:, None]
    rows = weight + row * SPAN
    tile = tl.load(rows + word, mask=word < SPAN, other=0, eviction_policy="evict_first")
    after_others(DEPENDENT)

    # Tokens lie as [half, eight columns, chunk, warp, token; lane, word].
    line = tl.arange(0, HALVES * (LANE // 8) * CHUNKS * WARPS * 8)
    token = (line // (LANE * CHUNKS * WARPS) * 8 + line % 8)[:, None]
    pair = line // 8 % (CHUNKS * WARPS) * (CHUNK // 2) + line // (8 * CHUNKS * WARPS) % (LANE // 8) * 4
    pair = pair[:, None] + (tl.arange(0, 16) // 4 * (LANE // 2) + tl.arange(0, 16) % 4)[None, :]
    value = tl.load(x + token * (K // 2) + pair, mask=(token < tokens) & (pair < K // 2), other=0)
    gain = 0
    squares = 0.0
    if norm is not None:
        gain = tl.load(norm + pair, mask=pair < K // 2, other=0)
        squares = tl.zeros((HALVES, WARPS, 8, 4), tl.float32)
    sums = tl.zeros((CHUNKS * WARPS, BLOCK_N, HALVES * 8), tl.float32)

    for k in range(0, K, BLOCK_K):
        coming = k // PACKED + BLOCK_K // PACKED + word
        ahead = tl.load(rows + coming, mask=coming < SPAN, other=0, eviction_policy="evict_first")
        next_pair = k // 2 + BLOCK_K // 2 + pair
        value_ahead = tl.load(
            x + token * (K // 2) + next_pair, mask=(token < tokens) & (next_pair < K // 2), other=0
        )
        gain_ahead = 0
        x_tile = pairs(value, DTYPE)
        if norm is not None:
            gain_ahead = tl.load(norm + next_pair, mask=next_pair < K // 2, other=0)
            loud = x_tile.to(tl.float32)
            square = tl.reshape(loud * loud, (HALVES, LANE // 8 * CHUNKS, WARPS, 8, 4, 8))
            squares += tl.sum(tl.sum(square, axis=5), axis=1)
            x_tile = (loud * (pairs(gain, DTYPE).to(tl.float32) * ROOM)).to(FLOAT)
        matrix = _matrix(tile, DTYPE, FLOAT, CODES)
        matrix = tl.reshape(matrix, (TILES, 2, CHUNKS, WARPS, 8, 4, LANE // 4, 4))
        matrix = tl.permute(matrix, (2, 3, 0, 1, 4, 6, 5, 7))
        matrix = tl.reshape(matrix, (CHUNKS * WARPS, BLOCK_N, CHUNK))
        x_tile = tl.reshape(x_tile, (HALVES, LANE // 8, CHUNKS, WARPS, 8, 4, 2, 4))
        x_tile = tl.permute(x_tile, (2, 3, 1, 6, 5, 7, 0, 4))
        x_tile = tl.reshape(x_tile, (CHUNKS * WARPS, CHUNK, HALVES * 8))
        if not COMPILED:
            matrix = matrix.to(tl.float32)
            x_tile = x_tile.to(tl.float32)
        sums = tl.dot(matrix, x_tile, sums)
        tile = ahead
        value = value_ahead
        gain = gain_ahead

    y = tl.sum(sums, axis=0)
    at, own = own_rows(width, GATE, BLOCK_N)
    if CODES == INT8:
        y *= (tl.load(scale + own) * (1.0 / 127.0))[:, None]
    size = 0.0
    if norm is not None:
        size = tl.reshape(tl.sum(tl.sum(squares, axis=3), axis=1), (HALVES * 8,))
    TOKENS: tl.constexpr = 8 * HALVES
    finish(
        y,
        at,
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
