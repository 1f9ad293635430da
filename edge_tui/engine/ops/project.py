"""Multiplies a few tokens by a matrix, with what surrounds it in a decoder layer folded in.

A decode step at batch 1 reads every weight once and does little else, so a layer is a handful of calls of
this shape: norm and matrix; matrix and residual; norm, two matrices and their gate. On an NVIDIA GPU each is
one kernel (`triton.project`); where Triton is missing, the same call runs as plain torch operations.

Shapes: `T` tokens (rows times positions), `K` columns that a weight row spans, `N` rows, `I = N / 2` where
gate and up lie in one matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine.ops.packed import NF4_BLOCK, NF4_LEVELS, PackedMatrix
from edge_tui.engine.ops.triton.availability import available

if TYPE_CHECKING:
    from torch import Tensor, dtype

MAX_TOKENS = 16
"""Above it the product is bound by arithmetic, which is a matter for cuBLAS."""


def project(
    x: Tensor,
    packed: PackedMatrix,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: bool = False,
    residual: Tensor | None = None,
) -> None:
    """Computes `out = x̂ Wᵀ + b (+ residual)`; `x̂` is `x`, or `x` under a root mean square norm.

    Sums are float32. int8 is weight-only: activations stay in 16 bit, so LLM.int8's outliers need neither a
    threshold nor a second product.

    Args:
        x: `[T, K]` in the compute dtype, contiguous, `T` at most `MAX_TOKENS`.
        packed: The matrix.
        out: `[T, N]`, or `[T, I]` with `gate`; contiguous. May be float32 while `x` is 16 bit.
        norm: `[K]`, weight of the norm applied to `x` first.
        eps: The norm's epsilon.
        gate: The first `I` rows of the matrix are the gate's, the others the up projection's;
            `out = silu(gate) · up`.
        residual: `[T, N]`, added at the end; may be `out` itself.
    """
    if x.is_cuda and len(x) <= MAX_TOKENS and available() is None:
        from edge_tui.engine.ops.triton import project as project_triton

        project_triton.project(x, packed, out, norm=norm, eps=eps, gate=gate, residual=residual)
    else:
        reference(x, packed, out, norm=norm, eps=eps, gate=gate, residual=residual)


def reference(
    x: Tensor,
    packed: PackedMatrix,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: bool = False,
    residual: Tensor | None = None,
) -> None:
    """Computes `project` in plain torch operations, on any device."""
    from torch.nn import functional as F

    if norm is not None:
        x = F.rms_norm(x, (packed.columns,), norm, eps)
    y = F.linear(x, dequantise(packed, x.dtype), packed.bias)
    if gate:
        half = packed.rows // 2
        y = F.silu(y[:, :half]) * y[:, half:]
    out.copy_(y if residual is None else y + residual)


def dequantise(packed: PackedMatrix, dtype: dtype) -> Tensor:
    """Widens a matrix `[N, K]` to `dtype`; returns the weight itself if it has that dtype already."""
    if packed.kind == "plain":
        return packed.weight.to(dtype)
    assert packed.scale is not None
    if packed.kind == "int8":
        return (packed.weight * (packed.scale / 127.0)[:, None]).to(dtype)
    import torch

    codes = packed.weight.reshape(-1)
    codes = torch.stack((codes >> 4, codes & 15), -1).int()
    levels = torch.tensor(NF4_LEVELS, device=codes.device)[codes]
    return (levels.view(-1, NF4_BLOCK) * packed.scale[:, None]).view(packed.rows, packed.columns).to(dtype)


def embed(ids: Tensor, table: Tensor, out: Tensor) -> None:
    """Looks up rows of the embedding.

    Args:
        ids: int64 `[T]`.
        table: `[V, K]`.
        out: `[T, K]`, contiguous.
    """
    if ids.is_cuda and available() is None:
        from edge_tui.engine.ops.triton import project as project_triton

        project_triton.embed(ids, table, out)
    else:
        out.copy_(table[ids])
