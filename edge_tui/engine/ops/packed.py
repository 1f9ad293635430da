"""Defines `PackedMatrix`: a weight matrix as a GPU stores it, plain, int8, or codes in groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.group_form import GroupForm


class PrecisionError(ValueError):
    """Says why a device cannot run a precision, and what to do."""


class CodeFault(ValueError):
    """Says in one sentence why a device cannot multiply by codes in groups."""


@dataclass(frozen=True, slots=True)
class PackedMatrix:
    """Holds a matrix `[N, K]` as it lies in memory.

    Attributes:
        kind: "plain", "int8", or `GroupForm.kind`.
        weight: plain: `[N, K]` bfloat16, float16 or float32; int8: int8 `[N, K]`; groups: int32 words
            `[N, K' · bits / 32]` as `code_groups.pack` lays them out, `K'` whole chunks. All contiguous.
        scale: int8: float32 `[N]`, absmax of each row, `w = q · scale / 127`; groups: float16, int8 or
            float32 `[N, K' / group, 1 or 2]` as `CodeGroups.scale`; plain: None.
        bias: `[N]` in the compute dtype, or None.
        rows: `N`.
        columns: `K`; a multiple of 4 for int8, of the group for groups.
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
