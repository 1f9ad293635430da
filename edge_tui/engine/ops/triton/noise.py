"""Computes the random numbers of `edge_tui.decoders.core.random.Rng`: for kernels, and for any ids by one.

Change both: a GPU and a CPU draw with the same luck.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.decoders.core.random import ID_BITS

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.core.kernels import Noise

_BITS, _UNIFORM, _GUMBEL = (tl.constexpr(number) for number in range(3))
_KINDS: dict[Noise, tl.constexpr] = {"bits": _BITS, "uniform": _UNIFORM, "gumbel": _GUMBEL}
_ID_BITS = tl.constexpr(ID_BITS)
_MASK32 = tl.constexpr(0xFFFFFFFF)
_BLOCK = 1024


@triton.jit
def bits(ids, key, step):
    """Computes `Rng.bits`, int64."""
    y = (step << _ID_BITS) * key + ids.to(tl.int64) * key
    z = y + key
    x = y * y + y
    x = ((x >> 32) & _MASK32) | (x << 32)
    x = x * x + z
    x = ((x >> 32) & _MASK32) | (x << 32)
    x = x * x + y
    x = ((x >> 32) & _MASK32) | (x << 32)
    x = x * x + z
    return (x >> 32) & _MASK32


@triton.jit
def uniform(ids, key, step):
    """Computes `Rng.uniform`, bit for bit."""
    u = (bits(ids, key, step).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    return tl.minimum(u, 0.999999940395355225)


@triton.jit
def gumbel(ids, key, step):
    """Computes `Rng.gumbel`, but for the rounding of logarithms."""
    u = uniform(ids, key, step)
    # −log(1 − u): a series near 0; elsewhere the logarithm of the rounded difference, and what was rounded.
    series = u * (1.0 + u * (0.5 + u * (0.33333334 + u * (0.25 + u * (0.2 + u * 0.16666667)))))
    rest = 1.0 - u
    exact = -tl.log(rest) - ((1.0 - rest) - u) / rest
    return -tl.log(tl.where(u < 0.04, series, exact))


@triton.jit
def _noise_kernel(
    ids,
    row_stride,
    stride,
    key,
    key_stride,
    step,
    step_stride,
    offset,
    out,
    N,
    KIND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Computes numbers of a block of a row's ids."""
    row = tl.program_id(1).to(tl.int64)
    spots = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = spots < N
    id = tl.load(ids + row * row_stride + spots * stride, mask=inside, other=0) + offset
    own, at = tl.load(key + row * key_stride), tl.load(step + row * step_stride)
    if KIND == _BITS:
        number = bits(id, own, at)
    elif KIND == _UNIFORM:
        number = uniform(id, own, at)
    else:
        number = gumbel(id, own, at)
    tl.store(out + row * N + spots, number, mask=inside)


def noise(kind: Noise, ids: Tensor, key: Tensor, step: Tensor, offset: int) -> Tensor:
    """Computes numbers `[R, N]`: bits as int64, others as float32.

    Args:
        kind: The method of `Rng`.
        ids: int64 `[R, N]` or `[1, N]`, in any strides.
        key: int64 `[R]` or `[1]`.
        step: int64 `[R]` or `[1]`.
        offset: Added to each id.
    """
    rows, count = max(len(ids), len(key)), ids.shape[1]
    out = torch.empty(rows, count, dtype=torch.int64 if kind == "bits" else torch.float32, device=ids.device)
    grid = triton.cdiv(count, _BLOCK), rows
    numbers = ids, row_stride(ids), ids.stride(1), key, row_stride(key), step, row_stride(step), offset
    _noise_kernel[grid](*numbers, out, count, KIND=_KINDS[kind], BLOCK=_BLOCK)
    return out


def row_stride(x: Tensor) -> int:
    """Returns the distance from a row's numbers to the next one's; 0 where one row holds for all."""
    return 0 if len(x) == 1 else x.stride(0)
