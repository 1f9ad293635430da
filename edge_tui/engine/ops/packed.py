"""Defines `PackedMatrix`: a weight matrix as a GPU stores it, plain, int8, NF4, or codes in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.group_form import GroupForm

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


class PrecisionError(ValueError):
    """Says why a device cannot run a precision, and what to do."""


class CodeFault(ValueError):
    """Says in one sentence why a device cannot multiply by codes in groups."""


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Holds a matrix `[N, K]` as it lies in memory.

    Attributes:
        kind: "plain", "int8", "nf4", or `GroupForm.kind`.
        weight: plain: `[N, K]` bfloat16, float16 or float32; int8: int8 `[N, K]`; nf4: uint8 with `N·K/2`
            elements, row after row, two codes a byte, the first in the high half; groups: int32 words
            `[N, K' · bits / 32]` as `code_groups.pack` lays them out, `K'` whole chunks. All contiguous.
        scale: int8: float32 `[N]`, absmax of each row, `w = q · scale / 127`; nf4: float32 `[N·K/64]`,
            absmax of each 64 weights, `w = level[q] · scale`; groups: float16 or int8
            `[N, K' / group, 1 or 2]` as `CodeGroups.scale`; plain: None.
        bias: `[N]` in the compute dtype, or None.
        rows: `N`.
        columns: `K`; a multiple of 64 for nf4, of 4 for int8, of the group for groups.
        outer: groups: float16 `[N, ⌈K' / 256⌉, 1 or 2]`, which `scale` is multiplied by, or None.
        form: groups: what bits, groups and subtrahends there are; None for the other kinds.
    """

    kind: str
    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
    rows: int
    columns: int
    outer: Tensor | None = None
    form: GroupForm | None = None
