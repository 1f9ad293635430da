"""Applies norms that stand between two products: on what a layer adds, or on all heads of a token at once.

A norm before a product costs nothing (`triton.project`), but where several tokens meet codes in groups. One
after it needs the whole product, which many programs compute. These are kernels of their own: one program a
token, and another one for its keys. In a chain the product that follows fetches its first weights meanwhile.
The norm of one position's heads needs no kernel: attention computes it (`triton.attend`).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, possibly-undefined"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.launch import COMPILED, after_others, chain

if TYPE_CHECKING:
    from torch import Tensor

_LANE = 8
"""Numbers that a lane loads at once."""
_MAX_WARPS = 16


@triton.jit
def norm_kernel(
    x,
    norm,
    residual,
    out,
    eps,
    STRIDE: tl.constexpr,
    FIRST: tl.constexpr,
    SECOND: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Normalises one part of a row and adds the residual stream; the grid is (rows, parts).

    Parts of `FIRST` and `SECOND` numbers lie side by side; rows of all tensors are `STRIDE` apart.
    """
    part = tl.program_id(1)
    column = tl.arange(0, BLOCK)
    width = tl.where(part == 0, FIRST, SECOND)
    inside = column < width
    gain = tl.load(norm + part * FIRST + column, mask=inside, other=0.0).to(tl.float32)
    at = tl.program_id(0) * STRIDE + part * FIRST + column
    after_others(DEPENDENT)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        before = tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    value = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + eps) * gain
    if residual is not None:
        value += before
    if not COMPILED and tl.bfloat16 == out.dtype.element_ty:  # the interpreter rounds it down
        bits = value.to(tl.int32, bitcast=True)
        value = ((bits + 0x7FFF + (bits >> 16 & 1)) & -0x10000).to(tl.float32, bitcast=True)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def add_normed(x: Tensor, norm: Tensor, eps: float, residual: Tensor, out: Tensor) -> None:
    """Computes `out = residual + x / sqrt(mean(x²) + ε) · norm` in float32.

    Args:
        x: `[T, K]`, contiguous, what a layer adds.
        norm: `[K]`.
        eps: ε.
        residual: `[T, K]`, contiguous, the stream.
        out: `[T, K]`, contiguous; may be `residual`.
    """
    columns = x.shape[1]
    _launch((len(x), 1), x, norm, residual, out, eps, columns, columns, 0)


def norm_tokens(x: Tensor, norm: Tensor, eps: float) -> Tensor:
    """Returns `x / sqrt(mean(x²) + ε) · norm`, computed in float32; arguments as of `add_normed`."""
    out = torch.empty_like(x)
    columns = x.shape[1]
    _launch((len(x), 1), x, norm, None, out, eps, columns, columns, 0)
    return out


def norm_heads(qkv: Tensor, norm: Tensor, eps: float, kv_heads: int) -> None:
    """Normalises, in place, a token's queries over all heads, and its keys.

    Args:
        qkv: `[T, (H + 2 Hkv) * D]`, contiguous.
        norm: `[H + Hkv, D]`, contiguous.
        eps: Added to the mean square.
        kv_heads: `Hkv`.
    """
    heads, head_dim = norm.shape
    keys = kv_heads * head_dim
    _launch((len(qkv), 2), qkv, norm, None, qkv, eps, qkv.shape[1], heads * head_dim - keys, keys)


def _launch(
    grid: tuple[int, int],
    x: Tensor,
    norm: Tensor,
    residual: Tensor | None,
    out: Tensor,
    eps: float,
    stride: int,
    first: int,
    second: int,
) -> None:
    block = max(triton.next_power_of_2(max(first, second)), 32 * _LANE)
    norm_kernel[grid](
        x,
        norm,
        residual,
        out,
        eps,
        STRIDE=stride,
        FIRST=first,
        SECOND=second,
        BLOCK=block,
        num_warps=min(block // (32 * _LANE), _MAX_WARPS),
        **chain(x.device),
    )
