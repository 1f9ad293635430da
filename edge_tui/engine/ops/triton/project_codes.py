"""Unpacks words of quantised weights and their scales in registers: the part that matrix kernels share."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

import triton
import triton.language as tl

from edge_tui.engine.ops.triton.launch import COMPILED

CODES = {"plain": 1, "int8": 4, "nf4": 8}
"""Weights in one element of the matrix as a kernel loads it."""
PLAIN, INT8, NF4 = (tl.constexpr(CODES[kind]) for kind in ("plain", "int8", "nf4"))

_INT8_TO_FLOAT: tl.constexpr = tl.constexpr("""{
    .reg .b32 biased, part;
    xor.b32 biased, $4, 0x80808080;
    prmt.b32 part, biased, 0x4B000000, 0x7540;
    sub.f32 $0, part, 0f4B000080;
    prmt.b32 part, biased, 0x4B000000, 0x7541;
    sub.f32 $1, part, 0f4B000080;
    prmt.b32 part, biased, 0x4B000000, 0x7542;
    sub.f32 $2, part, 0f4B000080;
    prmt.b32 part, biased, 0x4B000000, 0x7543;
    sub.f32 $3, part, 0f4B000080;
}""")
"""Bytes become the low mantissa bits of 2²³, from which 2²³ + 128 is taken: cheaper than a conversion."""

_NF4_TO_FLOAT: tl.constexpr = tl.constexpr("""{
    .reg .b32 code;
    shr.u32 code, $8, 4;
    shfl.sync.idx.b32 $0, $9, code, 0x101f, 0xffffffff;
    shfl.sync.idx.b32 $1, $9, $8, 0x101f, 0xffffffff;
    shr.u32 code, $8, 12;
    shfl.sync.idx.b32 $2, $9, code, 0x101f, 0xffffffff;
    shr.u32 code, $8, 8;
    shfl.sync.idx.b32 $3, $9, code, 0x101f, 0xffffffff;
    shr.u32 code, $8, 20;
    shfl.sync.idx.b32 $4, $9, code, 0x101f, 0xffffffff;
    shr.u32 code, $8, 16;
    shfl.sync.idx.b32 $5, $9, code, 0x101f, 0xffffffff;
    shr.u32 code, $8, 28;
    shfl.sync.idx.b32 $6, $9, code, 0x101f, 0xffffffff;
    shr.u32 code, $8, 24;
    shfl.sync.idx.b32 $7, $9, code, 0x101f, 0xffffffff;
}""")
"""Each half of a warp holds the 16 levels, one a lane; a code is the lane to read from."""

_PAIR_BF16: tl.constexpr = tl.constexpr("lop3.b32 $0, $1, 0x000F000F, 0x43004300, 0xEA;")
_PAIR_FP16: tl.constexpr = tl.constexpr("lop3.b32 $0, $1, 0x000F000F, 0x64006400, 0xEA;")
"""`a & b | c` in one instruction, of which the compiler makes two."""

LEAST = {"none": 0, "own": 1, "zero": 2}
"""Numbers of `GroupForm.least` for kernels."""
NONE, OWN = (tl.constexpr(LEAST[name]) for name in ("none", "own"))


@triton.jit
def lane_level(levels):
    """Returns this lane's of the 16 levels: one register a thread, a scalar to Triton."""
    lane = tl.inline_asm_elementwise("mov.u32 $0, %laneid;", "=r", [], tl.int32, is_pure=True, pack=1)
    return tl.load(levels + (lane & 15))


@triton.jit
def unpack(tile, levels, level, CODES: tl.constexpr):
    """Unpacks the weights of a tile as float32: one tensor for each place in an element."""
    if CODES == PLAIN:
        return (tile.to(tl.float32),)
    elif CODES == INT8:
        if not COMPILED:
            return (
                ((tile << 24) >> 24).to(tl.float32),
                ((tile << 16) >> 24).to(tl.float32),
                ((tile << 8) >> 24).to(tl.float32),
                (tile >> 24).to(tl.float32),
            )
        else:
            return tl.inline_asm_elementwise(
                _INT8_TO_FLOAT, "=f,=f,=f,=f,r", [tile], (tl.float32,) * 4, is_pure=True, pack=1
            )
    else:
        if not COMPILED:
            return (
                tl.load(levels + ((tile >> 4) & 15)),
                tl.load(levels + (tile & 15)),
                tl.load(levels + ((tile >> 12) & 15)),
                tl.load(levels + ((tile >> 8) & 15)),
                tl.load(levels + ((tile >> 20) & 15)),
                tl.load(levels + ((tile >> 16) & 15)),
                tl.load(levels + ((tile >> 28) & 15)),
                tl.load(levels + ((tile >> 24) & 15)),
            )
        else:
            return tl.inline_asm_elementwise(
                _NF4_TO_FLOAT,
                "=f,=f,=f,=f,=f,=f,=f,=f,r,f",
                [tile, level],
                (tl.float32,) * 8,
                is_pure=True,
                pack=1,
            )


@triton.jit
def digits(words, SHIFT: tl.constexpr, DTYPE: tl.constexpr):
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
