"""Unpacks the blocks of GGUF's packed kinds to float32, bit for bit as ggml's reference does.

Each function writes straight into the result: the integers first, then the scales over them, so that nothing
of the result's size is made beside it.

Source: dequantize_row_* in https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def unpack(kind: str, blocks: Tensor, out: Tensor) -> None:
    """Unpacks blocks.

    Args:
        kind: "Q4_0", "Q4_K" …
        blocks: uint8 `[n, bytes of a block]`, contiguous.
        out: float32 `[n, numbers of a block]`, contiguous; receives the numbers.
    """
    _UNPACK[kind](blocks, out)


def _half(blocks: Tensor, at: int) -> Tensor:
    """Reads a float16 of each block: float32 `[n, 1]`."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor, out: Tensor) -> None:
    """Writes the low halves of bytes uint8 `[n, k, b]` before the high ones: `[n, k, 2, b]`."""
    halves = out.view(*packed.shape[:2], 2, packed.shape[2])
    halves[:, :, 0] = packed & 15
    halves[:, :, 1] = packed >> 4


def _fifth_bits(blocks: Tensor, at: int, out: Tensor) -> None:
    """Adds 16 where one of the 32 bits from byte `at` on is set."""
    bits = torch.arange(8, dtype=torch.uint8)
    out.view(-1, 4, 8).add_(blocks[:, at : at + 4, None] >> bits & 1, alpha=16)


def _q4_0(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, None, 2:], out)
    out.sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, None, 4:], out)
    out.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, None, 6:], out)
    _fifth_bits(blocks, 2, out)
    out.sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, None, 8:], out)
    _fifth_bits(blocks, 4, out)
    out.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks[:, 2:].view(torch.int8))
    out.mul_(_half(blocks, 0))


def _scale_and_least(blocks: Tensor, out: Tensor) -> None:
    """Applies the eight scales and subtrahends of a super-block, six bits each in bytes 4 to 15."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((low & 63, high & 15 | low >> 6 << 4), 1)
    least = torch.cat((middle & 63, high >> 4 | middle >> 6 << 4), 1)
    numbers = out.view(-1, 8, 32)
    numbers.mul_((_half(blocks, 0) * scales)[..., None])
    numbers.sub_((_half(blocks, 2) * least)[..., None])


def _q4_k(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 16:].view(-1, 4, 32), out)
    _scale_and_least(blocks, out)


def _q5_k(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 48:].view(-1, 4, 32), out)
    bits = torch.arange(8, dtype=torch.uint8)[:, None]
    out.view(-1, 8, 32).add_(blocks[:, None, 16:48] >> bits & 1, alpha=16)
    _scale_and_least(blocks, out)


def _q6_k(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, :128].view(-1, 2, 64), out)
    pairs = torch.arange(0, 8, 2, dtype=torch.uint8)[:, None]
    out.view(-1, 2, 4, 32).add_(blocks[:, 128:192].view(-1, 2, 1, 32) >> pairs & 3, alpha=16)
    scales = _half(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    out.view(-1, 16, 16).sub_(32).mul_(scales[..., None])


_UNPACK: dict[str, Callable[[Tensor, Tensor], None]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
