"""The kernels behind `project`."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

if TYPE_CHECKING:
    from torch import Tensor


@triton.jit
def _embed(ids, table, out, columns, BLOCK: tl.constexpr):
    token = tl.program_id(0)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(ids + token)
    values = tl.load(table + row * columns + column, mask=column < columns)
    tl.store(out + token * columns + column, values, mask=column < columns)


INTERPRETED = isinstance(_embed, InterpretedFunction)


def embed(ids: Tensor, table: Tensor, out: Tensor) -> None:
    """`project.embed` as a kernel."""
    columns = table.shape[1]
    _embed[(len(ids), triton.cdiv(columns, 1024))](ids, table, out, columns, BLOCK=1024)
