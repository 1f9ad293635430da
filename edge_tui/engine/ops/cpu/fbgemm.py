"""Packs matrices with FBGEMM and multiplies by them: int8 for integer products, float16 for float32 ones.

torch has deprecated the way into FBGEMM, and nothing needs it: `multiplies` tries a product, and where that
fails other formats serve. All uses of `torch.ops.quantized` are in this file. The products are in the part of
Python that TorchScript knows.
"""

from __future__ import annotations

import logging
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    Opaque = Any
else:
    try:
        Opaque = torch.classes.quantized.LinearPackedParamsBase
    except (RuntimeError, AttributeError):  # built without: nothing makes any
        Opaque = torch.Tensor
"""A matrix as FBGEMM packs it."""

_log = logging.getLogger(__name__)


def half_product(x: torch.Tensor, matrix: Opaque) -> torch.Tensor:
    """Multiplies float32 `[T, K]` by a matrix that `pack_half` made."""
    y: torch.Tensor = torch.ops.quantized.linear_dynamic_fp16(x, matrix)
    return y


def int8_product(x: torch.Tensor, matrix: Opaque) -> torch.Tensor:
    """Multiplies whole numbers of -127 to 127, float32 `[T, K]`, by a matrix that `pack_codes` made.

    It rounds by itself.
    """
    y: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(x, 1.0, 128, matrix)
    return y


def pack_half(weight: torch.Tensor) -> Opaque:
    """Packs `[N, K]` as float16, `N` filled up to a multiple of 16 and `K` to one of `VECTOR_BLOCK`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ops.quantized.linear_prepack_fp16(weight, None)


def pack_codes(codes: torch.Tensor, scales: torch.Tensor) -> Opaque:
    """Packs codes int8 `[N, K]` with a scale for each row."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            no_zeros = torch.zeros(len(codes), dtype=torch.int64)
            matrix = torch._make_per_channel_quantized_tensor(codes, scales.double(), no_zeros, 0)
            return torch.ops.quantized.linear_prepack(matrix, None)
    finally:
        torch.backends.quantized.engine = before


def multiplies(product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> bool:
    """Tells whether a product `[T, K]` times `[N, K]` works and is right; logs it once if it does not."""
    try:
        with torch.inference_mode():
            weight = torch.ones(32, 64)
            weight[1::2] = -1.0
            y = product(torch.ones(2, 64), weight)
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        _log_once(f"{type(error).__name__}: {error}")
        return False
    return bool(torch.allclose(y, 64.0 * weight[:, 0].expand(2, -1), rtol=1e-4))


@cache
def _log_once(reason: str) -> None:
    _log.warning("A packed product of this torch does not work and is not used (%s).", reason)
