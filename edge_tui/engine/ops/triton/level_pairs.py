"""Looks up the levels of NF4 in registers, as pairs of 16-bit numbers for tensor cores.

`prmt` takes four bytes of eight by the lower three bits of four codes; the bytes of a number are looked up
one by one. `code_groups` writes a code as one of eight pairs of neighbouring levels, and which of the two. In
units in which the largest level is 5.5 times the least normal number, some levels are subnormal, and the two
of a pair have one high byte. So three tables of eight bytes serve sixteen numbers: the low byte of a pair's
smaller level, the step from there to the larger one, and their high byte.

A level is rounded to 8 bits, as dequantised weights of bfloat16 are; `_LARGEST` makes the errors as small on
average as theirs, 0.08 % of the norm. Rejected: `shfl` from lanes that hold a level each, which reached 43 %
of an H200's bandwidth; a table for each byte and half of the codes, without subnormals, at 19 instructions.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, misc"

from __future__ import annotations

from functools import cache
from math import floor, log2
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.group_form import NF4_LEVELS
from edge_tui.engine.ops.triton.launch import COMPILED

if TYPE_CHECKING:
    from torch import Tensor

_LARGEST = 5.491
"""The largest level in units of the least normal number.

From 5.06 to 5.92 the two of each pair differ in the low byte alone, by less than 128; there this number has
the least error, weighted by how often normally distributed weights have each level.
"""
_UNIT = 1 / 5.4979
"""What a unit stands for, fitted to the rounded levels."""
ROOM_BF16: tl.constexpr = tl.constexpr(0x5F805F80)
"""2⁶⁴ twice: tokens of bfloat16 are multiplied by it, so that their products with levels are normal."""
LEVEL_BF16: tl.constexpr = tl.constexpr(_UNIT * 2.0 ** (126 - 64))
LEVEL_FP16: tl.constexpr = tl.constexpr(_UNIT * 2.0**14)
"""What sums of such products are multiplied by in the end; the least normal numbers are 2⁻¹²⁶ and 2⁻¹⁴."""

_LOOK_UP: tl.constexpr = tl.constexpr(
    "{ .reg .b32 code, pair, low, step, high; mov.b32 code, $4; and.b32 pair, code, 0x77777777;"
    + "shr.u32 code, code, 16; shr.u32 pair, pair, 16;".join(
        "prmt.b32 low, $5, $6, pair; prmt.b32 step, $7, $8, code; prmt.b32 high, $9, $10, pair;"
        f"add.u32 low, low, step; prmt.b32 ${at}, low, high, 0x5140; prmt.b32 ${at + 1}, low, high, 0x7362;"
        for at in (0, 2)
    )
    + "}"
)
"""Looks up eight levels: 13 instructions, and two additions.

A code whose highest bit is set takes the highest bit of a step four times over, which is a byte of 0.
"""


def _bits(level: float) -> int:
    """Rounds a level to a bfloat16 without sign; its bits."""
    units = abs(level) * _LARGEST
    exponent = max(floor(log2(units)), 0) if units else 0
    return 128 * exponent + round(128 * units / (1 << exponent))


@cache
def level_tables(device: torch.device) -> Tensor:
    """Returns the three tables, two words each, for 32 lanes, int32 `[6, 32]`; the first call waits."""
    pairs = [sorted(map(_bits, NF4_LEVELS[at : at + 2])) for at in range(0, 16, 2)]
    low = [smaller & 255 for smaller, _ in pairs]
    step = [larger - smaller for smaller, larger in pairs]
    high = [(smaller >> 8) + 128 * (at < 4) for at, (smaller, _) in enumerate(pairs)]
    words = torch.tensor(low + step + high, dtype=torch.uint8, device=device).view(torch.int32)
    return words[:, None].repeat(1, 32)


@triton.jit
def load_tables(tables):
    """Loads the tables into registers of each lane: what is the same for all is copied there at each use."""
    if COMPILED:
        tables += tl.inline_asm_elementwise("mov.u32 $0, %laneid;", "=r", [], tl.int32, is_pure=True, pack=1)
    return (
        tl.load(tables),
        tl.load(tables + 32),
        tl.load(tables + 64),
        tl.load(tables + 96),
        tl.load(tables + 128),
        tl.load(tables + 160),
    )


@triton.jit
def _byte(low, high, pair):
    """Returns one of eight bytes."""
    return tl.where(pair < 4, low, high) >> (pair % 4 * 8) & 255


@triton.jit
def _level(t, code):
    """Looks up the 16 bits of a level as `_LOOK_UP` does."""
    pair = code & 7
    step = tl.where(code & 8 == 0, _byte(t[2], t[3], pair), 0)
    return _byte(t[4], t[5], pair) << 8 | (_byte(t[0], t[1], pair) + step)


@triton.jit
def level_pairs(words, t, DTYPE: tl.constexpr):
    """Makes four pairs of 16-bit numbers of the codes of each word: levels of NF4, in units.

    Args:
        words: Codes as `code_groups.pack` lays them out.
        t: What `load_tables` loads.
        DTYPE: Of the numbers.
    """
    if not COMPILED:
        pairs = ()
        for i in tl.static_range(4):
            pair = _level(t, words >> (8 * i)) | _level(t, words >> (8 * i + 4)) << 16
            pairs = pairs + (pair,)  # noqa: RUF005 - Triton has no unpacking
    else:
        pairs = tl.inline_asm_elementwise(
            _LOOK_UP,
            "=r,=r,=r,=r,r,r,r,r,r,r,r",
            [words, t[0], t[1], t[2], t[3], t[4], t[5]],
            (tl.int32,) * 4,
            is_pure=True,
            pack=1,
        )
    both = tl.join(tl.join(pairs[0], pairs[2]), tl.join(pairs[1], pairs[3]))
    if tl.float16 == DTYPE:
        SIGNS: tl.constexpr = -0x7FFF8000
        both = (both & 0x7FFF7FFF) << 3 | both & SIGNS
    return both
