"""A few tokens times one matrix, with what surrounds it in a decoder layer folded in.

A decode step at batch 1 reads every weight once and does little else, so a layer is a handful of calls of
this shape: norm and matrix; matrix and residual; norm, two matrices and their gate. On an NVIDIA GPU each is
one kernel (`project_triton`); where Triton is missing, the same call runs as plain torch operations.

Shapes: `T` tokens (rows times positions), `K` columns that a weight row spans, `N` rows, `I = N / 2` where
gate and up lie in one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, dtype

MAX_TOKENS = 16
"""Above it the product is bound by arithmetic, which is a matter for cuBLAS."""
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
class Packed:
    """A matrix `[N, K]` as it lies in memory.

    Attributes:
        kind: "plain", "int8" or "nf4".
        weight: plain: `[N, K]` bfloat16, float16 or float32; int8: int8 `[N, K]`; nf4: uint8 with `N·K/2`
            elements, row after row, two codes a byte, the first in the high half. All contiguous.
        scale: int8: float32 `[N]`, absmax of each row, `w = q · scale / 127`; nf4: float32 `[N·K/64]`,
            absmax of each 64 weights, `w = level[q] · scale`; plain: None.
        bias: `[N]` in the compute dtype, or None.
        rows: `N`.
        columns: `K`; a multiple of 64 for nf4, of 4 for int8.
    """

    kind: str
    weight: Tensor
    scale: Tensor | None
    bias: Tensor | None
    rows: int
    columns: int


def project(
    x: Tensor,
    packed: Packed,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: bool = False,
    residual: Tensor | None = None,
) -> None:
    """`out = x̂ Wᵀ + b (+ residual)`, where `x̂` is `x`, or `x` under a root mean square norm.

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
    packed: Packed,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: bool = False,
    residual: Tensor | None = None,
) -> None:
    """`project` in plain torch operations, on any device."""
    from torch.nn import functional as F

    if norm is not None:
        x = F.rms_norm(x, (packed.columns,), norm, eps)
    y = F.linear(x, dequantise(packed, x.dtype), packed.bias)
    if gate:
        half = packed.rows // 2
        y = F.silu(y[:, :half]) * y[:, half:]
    out.copy_(y if residual is None else y + residual)


def dequantise(packed: Packed, dtype: dtype) -> Tensor:
    """The matrix `[N, K]` in `dtype`; the weight itself where it has that dtype already."""
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
    """Rows of the embedding.

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


@cache
def available() -> str | None:
    """None if Triton's kernels run here, else why not, in one sentence.

    The answer comes from running one: Triton needs a C compiler and CUDA's assembler at first use, and only
    a try tells. Under Triton's interpreter (`TRITON_INTERPRET=1`) kernels take tensors of the CPU.
    """
    try:
        import triton  # noqa: F401
    except ImportError:
        return "The fused kernels need Triton, which is not installed: pip install triton."
    import torch

    from edge_tui.engine.ops.triton import project as project_triton

    if not project_triton.INTERPRETED and not torch.cuda.is_available():
        return "The fused kernels need an NVIDIA GPU, and torch finds none."
    device = "cpu" if project_triton.INTERPRETED else "cuda"
    try:
        table = torch.arange(8.0, device=device).view(2, 4)
        out = torch.zeros(1, 4, device=device)
        project_triton.embed(torch.ones(1, dtype=torch.int64, device=device), table, out)
        works = bool((out == table[1]).all())
    except Exception as error:
        first = str(error).strip().splitlines() or [type(error).__name__]
        return f"Triton could not build a kernel here ({first[0]}): check that a C compiler is installed."
    return None if works else "Triton's kernels give wrong results here: update Triton and the driver."
