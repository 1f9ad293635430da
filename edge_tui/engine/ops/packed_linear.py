"""Multiplies by matrices that stay codes in groups on a GPU: a few tokens at once by their own kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from edge_tui.engine.ops.code_check import check
from edge_tui.engine.ops.code_groups import pack

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edge_tui.engine.ops.code_groups import CodeGroups
    from edge_tui.engine.ops.packed import PackedMatrix

_FEW = 16
"""Tokens up to which codes are read as they lie; more are a matter for cuBLAS, over 16 bits."""


class GroupLinear:
    """Holds a matrix of codes in groups; a `Linear`.

    Args:
        groups: The matrix.
        bias: `[N]` in the compute dtype, or None.
        dtype: The compute dtype.

    Raises:
        CodeFault: a kernel is wrong here, or there is none.
    """

    __slots__ = ("_packed", "nbytes", "parameters")

    def __init__(self, groups: CodeGroups, bias: Tensor | None, dtype: torch.dtype) -> None:
        self._packed = pack(groups, bias)
        check(self._packed, dtype)
        each = self._packed.weight, self._packed.scale, self._packed.outer, bias
        self.nbytes = sum(tensor.nbytes for tensor in each if tensor is not None)
        self.parameters = groups.codes.numel() + (0 if bias is None else bias.numel())

    def __call__(self, x: Tensor, few: bool = False) -> Tensor:
        """Multiplies `[N, in]`; for many tokens, or several of a prompt, a 16-bit copy of the matrix is made.

        Kernels for two to sixteen tokens are of four kinds, each compiled at its first use.
        """
        from edge_tui.engine.ops.triton.project import project
        from edge_tui.engine.ops.triton.widen_groups import widen

        packed = self._packed
        if len(x) > (_FEW if few else 1):
            return F.linear(x, widen(packed, x.dtype), packed.bias)
        out = x.new_empty(len(x), packed.rows)
        project(x.contiguous(), packed, out)
        return out

    def packed(self) -> PackedMatrix:
        """Returns codes, scales and subtrahends."""
        return self._packed
