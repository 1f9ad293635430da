"""Unpacks words of quantised weights and their scales in registers: the part that matrix kernels share."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

import triton
import triton.language as tl

from edge_tui.engine.ops.triton.launch import COMPILED

CODES = {"plain": 1, "int8": 4}
"""Weights in one element of the matrix as a kernel loads it."""
PLAIN, INT8 = (tl.constexpr(CODES[kind]) for kind in ("plain", "int8"))

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

_PAIR_BF16: tl.constexpr = tl.constexpr("lop3.b32 $0, $1, 0x000F000F, 0x43004300, 0xEA;")
_PAIR_FP16: tl.constexpr = tl.constexpr("lop3.b32 $0, $1, 0x000F000F, 0x64006400, 0xEA;")
"""`a & b | c` in one instruction, of which the compiler makes two."""

LEAST = {"none": 0, "own": 1, "zero": 2}
"""Numbers of `GroupForm.least` for kernels."""
NONE, OWN = (tl.constexpr(LEAST[name]) for name in ("none", "own"))


@triton.jit
def unpack(tile, CODES: tl.constexpr):
    """Unpacks the weights of a tile as float32: one tensor for each place in an element."""
    if CODES == PLAIN:
        return (tile.to(tl.float32),)
    elif not COMPILED:
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
def digits(words, DTYPE: tl.constexpr):
    """Makes pairs of the digits of each word: those from bits 0, 8 … on, and those from bits 4, 12 … on."""
    low = tl.join(_digits(words, 0, DTYPE), _digits(words, 8, DTYPE))
    return low, tl.join(_digits(words, 4, DTYPE), _digits(words, 12, DTYPE))


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
