"""Describes matrices that stay codes: `w = S·q − M`, a scale S and a subtrahend M for a group of columns.

GGUF's packed kinds, AWQ, GPTQ and AutoRound are all of this form. A code of NF4 is the number of a level
instead, `w = S·level[q]`. `code_groups` holds and packs such matrices, `triton.project_groups` multiplies by
them. This module counts their bytes, and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Least = Literal["none", "own", "zero"]

OUTER = 256
"""Columns that share the outer scales: a super-block of GGUF's K kinds."""
WIDEST = 128
"""Columns of the largest group; larger ones are written down as several."""
_SMALLEST = {4: 32, 8: 16}
"""Columns of the smallest group, by the bits of a code: those of one word in each of four lanes."""
_LANES, _WORDS = 4, 4
"""Lanes of a GPU that share a row of a chunk, and 32-bit words that each loads at once."""
NF4_BLOCK = 64
"""Weights that share one absmax."""
NF4_LEVELS = (
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
)
"""The 16 values of a 4-bit normal float (QLoRA, arXiv 2305.14314), as bitsandbytes rounds them."""


@dataclass(frozen=True, slots=True)
class GroupForm:
    """Describes how the codes of a matrix, their scales and subtrahends lie in memory.

    Attributes:
        bits: Of a code: 4 or 8.
        group: Columns that share a scale: a power of two up to `WIDEST`, 32 at least for 4 bits, 16 for 8.
        least: M of a group: "none" is stored, it is `zero · S`; its "own"; or "zero", stored in steps of S.
        outer: True if scales and subtrahends are bytes, to be multiplied by float16 of `OUTER` columns.
        levels: True if codes are numbers of `NF4_LEVELS`; scales are float32 then.
    """

    bits: int
    group: int
    least: Least = "none"
    outer: bool = False
    levels: bool = False

    @property
    def kind(self) -> str:
        """Names the kind of the packed matrix: "nf4"; "group4" or "group8", with an "m" where M is stored."""
        if self.levels:
            return "nf4"
        return f"group{self.bits}" + ("" if self.least == "none" else "m")

    @property
    def zero(self) -> int:
        """The code of weight 0 where no subtrahend is stored."""
        return 1 << (self.bits - 1)

    @property
    def factors(self) -> int:
        """Numbers stored for a group: its scale, and its subtrahend if there is one."""
        return 1 if self.least == "none" else 2

    @property
    def chunk(self) -> int:
        """Columns of which four lanes of a GPU load 16 bytes each."""
        return _LANES * _WORDS * 32 // self.bits

    def padded(self, columns: int) -> int:
        """Rounds the columns of a matrix up to whole chunks and groups."""
        step = max(self.chunk, self.group)
        return -(-columns // step) * step

    def nbytes(self, rows: int, columns: int) -> int:
        """Counts the bytes of a packed matrix."""
        columns = self.padded(columns)
        scales = columns // self.group * self.factors * (4 if self.levels else 1 if self.outer else 2)
        outer = -(-columns // OUTER) * self.factors * 2 if self.outer else 0
        return rows * (columns * self.bits // 8 + scales + outer)


NF4 = GroupForm(4, NF4_BLOCK, levels=True)


def form_of_groups(bits: int, group: int, least: Least = "none", outer: bool = False) -> GroupForm | None:
    """Makes the form of codes in groups of any size; None if no form holds them.

    Args:
        bits: Bits of a code at most, 1 to 8.
        group: Columns that share a scale.
        least: As `GroupForm.least`.
        outer: As `GroupForm.outer`.
    """
    share = group & -group  # the largest power of two that divides it
    bits = 4 if bits <= 4 and share >= _SMALLEST[4] else 8
    return GroupForm(bits, min(share, WIDEST), least, outer) if share >= _SMALLEST[8] else None


def merged(parts: Sequence[GroupForm | None]) -> GroupForm | None:
    """Returns the form of several matrices below one another; None if there is none, or one has none.

    Codes widen and groups divide without loss, and a subtrahend that is not stored can be.
    """
    forms = [form for form in parts if form is not None]
    if len(forms) < len(parts):
        return None
    stored = {form.least for form in forms} - {"none"}
    if len({(form.outer, form.levels) for form in forms}) > 1 or len(stored) > 1:
        return None
    first = forms[0]
    least = next(iter(stored), first.least)
    group = min(form.group for form in forms)
    bits = max(form.bits for form in forms) if group >= _SMALLEST[4] else 8
    return replace(first, bits=bits, group=group, least=least)
