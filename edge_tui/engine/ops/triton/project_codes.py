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

_PAIRS_8: tl.constexpr = tl.constexpr("and.b32 $0, $2, 0x00FF00FF; prmt.b32 $1, $2, 0, 0x4341;")
_PAIRS_4: tl.constexpr = tl.constexpr(
    "{ .reg .b32 part; and.b32 $0, $4, 0x000F000F;"
    + "".join(f"shr.u32 part, $4, {4 * at}; and.b32 ${at}, part, 0x000F000F;" for at in (1, 2, 3))
    + "}"
)
_RAISED_PAIRS_4: tl.constexpr = tl.constexpr(
    "{ .reg .b32 part; and.b32 $0, $4, 0x000F000F; and.b32 $1, $4, 0x00F000F0;"
    "shr.u32 part, $4, 8; and.b32 $2, part, 0x000F000F; and.b32 $3, part, 0x00F000F0; }"
)
"""Written out for the compiler, which splits words into halves otherwise."""

UNIT_FP16: tl.constexpr = tl.constexpr(2.0**-24)
UNIT_BF16: tl.constexpr = tl.constexpr(2.0 ** (64 - 133))
"""What a code of 1 is as the bits of a number; of bfloat16 times `ROOM_BF16`, its token's factor."""
LOWERED_BF16: tl.constexpr = tl.constexpr(0x5D805D80)
"""A sixteenth of `ROOM_BF16`, 2⁶⁰, twice."""

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
def _pairs_8(words):
    """Makes two pairs of the codes of each word, of eight bits."""
    if not COMPILED:
        return words & 0x00FF00FF, words >> 8 & 0x00FF00FF
    else:
        return tl.inline_asm_elementwise(_PAIRS_8, "=r,=r,r", [words], (tl.int32,) * 2, is_pure=True, pack=1)


@triton.jit
def _pairs_4(words, RAISED: tl.constexpr):
    """Makes four pairs of the codes of each word, of four bits."""
    if COMPILED:
        return tl.inline_asm_elementwise(
            _RAISED_PAIRS_4 if RAISED else _PAIRS_4,
            "=r,=r,=r,=r,r",
            [words],
            (tl.int32,) * 4,
            is_pure=True,
            pack=1,
        )
    elif RAISED:
        return words & 0x000F000F, words & 0x00F000F0, words >> 8 & 0x000F000F, words >> 8 & 0x00F000F0
    else:
        return words & 0x000F000F, words >> 4 & 0x000F000F, words >> 8 & 0x000F000F, words >> 12 & 0x000F000F


@triton.jit
def code_pairs(words, BITS: tl.constexpr, RAISED: tl.constexpr):
    """Makes pairs of 16-bit numbers of the codes of each word, whose bits are those of the codes.

    Of codes of four bits each second pair is 16 times as large where it is `RAISED`, which saves its shift.
    """
    if BITS == 8:
        first, second = _pairs_8(words)
        return tl.join(first, second)
    else:
        pairs = _pairs_4(words, RAISED)
        return tl.join(tl.join(pairs[0], pairs[2]), tl.join(pairs[1], pairs[3]))


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
