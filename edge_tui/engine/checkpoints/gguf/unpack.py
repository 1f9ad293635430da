"""Unpacks the blocks of GGUF's packed kinds: to codes with their scales, or to float32 as ggml does.

A number is `S·(q − zero) − M`: the codes q are written straight into the result, the scales S and subtrahends
M of their groups come over them, so that nothing of the result's size is made beside it. All numbers are,
bit for bit, those of ggml.

Source: dequantize_row_* in https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.checkpoints.gguf.kinds import FORMS
from edge_tui.engine.ops.code_groups import CodeGroups

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Factors = tuple[Tensor, Tensor | None]
    """Scales, and subtrahends where they are stored, of groups `[n, groups, 1 or 2]` in float16, or in int8
    with what they are multiplied by, float16 `[n, 1, 1 or 2]`."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Reads the blocks uint8 `[n, bytes]` of one kind.

    Attributes:
        zero: The code of weight 0, which has no subtrahend then.
        write_codes: Writes the codes into `[n, numbers of a block]` of any dtype.
        factors: Reads what the codes are multiplied by.
    """

    zero: int
    write_codes: Callable[[Tensor, Tensor], None]
    factors: Callable[[Tensor], Factors]


def unpack(kind: str, blocks: Tensor, out: Tensor) -> None:
    """Unpacks blocks.

    Args:
        kind: "Q4_0", "Q4_K" …
        blocks: uint8 `[n, bytes of a block]`, contiguous.
        out: float32 `[n, numbers of a block]`, contiguous; receives the numbers.
    """
    how = _KINDS[kind]
    how.write_codes(blocks, out)
    if how.zero:
        out.sub_(how.zero)
    scale, outer = how.factors(blocks)
    factors = scale.float() if outer is None else scale.float() * outer.float()
    numbers = out.view(len(blocks), scale.shape[1], -1).mul_(factors[..., :1])
    if factors.shape[2] > 1:
        numbers.sub_(factors[..., 1:])


def read_groups(kind: str, blocks: Tensor, rows: int) -> CodeGroups:
    """Reads the blocks of a matrix as codes, without any loss.

    Args:
        kind: "Q4_0", "Q4_K" …
        blocks: uint8 `[n, bytes of a block]`, contiguous.
        rows: Rows of the matrix.
    """
    how, form = _KINDS[kind], FORMS[kind]
    scale, outer = how.factors(blocks)
    numbers = scale.shape[1] * form.group
    codes = torch.empty(len(blocks), numbers, dtype=torch.uint8, device=blocks.device)
    how.write_codes(blocks, codes)
    if how.zero:
        codes += form.zero - how.zero
    return CodeGroups(
        form,
        codes.view(rows, -1),
        scale.reshape(rows, -1, scale.shape[2]),
        None if outer is None else outer.reshape(rows, -1, outer.shape[2]),
    )


def _half(blocks: Tensor, at: int) -> Tensor:
    """Reads a float16 of each block: `[n, 1, 1]`."""
    return blocks[:, at : at + 2].contiguous().view(torch.float16)[:, None]


def _nibbles(packed: Tensor, out: Tensor) -> None:
    """Writes the low halves of bytes uint8 `[n, k, b]` before the high ones: `[n, k, 2, b]`."""
    halves = out.view(*packed.shape[:2], 2, packed.shape[2])
    halves[:, :, 0] = packed & 15
    halves[:, :, 1] = packed >> 4


def _fifth_bits(blocks: Tensor, at: int, out: Tensor) -> None:
    """Adds 16 where one of the 32 bits from byte `at` on is set."""
    bits = torch.arange(8, dtype=torch.uint8, device=blocks.device)
    out.view(-1, 4, 8).add_(blocks[:, at : at + 4, None] >> bits & 1, alpha=16)


def _four(blocks: Tensor, out: Tensor, at: int) -> None:
    """Writes 32 codes of four bits from byte `at` on."""
    _nibbles(blocks[:, None, at:], out)


def _five(blocks: Tensor, out: Tensor, at: int) -> None:
    """Writes 32 codes whose fifth bits lie in the four bytes from `at` on, the others behind them."""
    _four(blocks, out, at + 4)
    _fifth_bits(blocks, at, out)


def _eight(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks[:, 2:] ^ 128)


def _four_k(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 16:].view(-1, 4, 32), out)


def _five_k(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, 48:].view(-1, 4, 32), out)
    bits = torch.arange(8, dtype=torch.uint8, device=blocks.device)[:, None]
    out.view(-1, 8, 32).add_(blocks[:, None, 16:48] >> bits & 1, alpha=16)


def _six_k(blocks: Tensor, out: Tensor) -> None:
    _nibbles(blocks[:, :128].view(-1, 2, 64), out)
    pairs = torch.arange(0, 8, 2, dtype=torch.uint8, device=blocks.device)[:, None]
    out.view(-1, 2, 4, 32).add_(blocks[:, 128:192].view(-1, 2, 1, 32) >> pairs & 3, alpha=16)


def _scale(blocks: Tensor) -> Factors:
    return _half(blocks, 0), None


def _scale_and_offset(blocks: Tensor) -> Factors:
    """Reads what is added as a subtrahend."""
    return torch.cat((_half(blocks, 0), -_half(blocks, 2)), -1), None


def _k_scales(blocks: Tensor) -> Factors:
    """Reads the eight scales and subtrahends of a super-block, six bits each in bytes 4 to 15."""
    low, middle, high = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((low & 63, high & 15 | low >> 6 << 4), 1)
    least = torch.cat((middle & 63, high >> 4 | middle >> 6 << 4), 1)
    both = torch.stack((scales, least), -1).view(torch.int8)
    return both, torch.cat((_half(blocks, 0), _half(blocks, 2)), -1)


def _six_k_scales(blocks: Tensor) -> Factors:
    return blocks[:, 192:208, None].contiguous().view(torch.int8), _half(blocks, 208)


_KINDS = {
    "Q4_0": _Blocks(8, partial(_four, at=2), _scale),
    "Q4_1": _Blocks(0, partial(_four, at=4), _scale_and_offset),
    "Q5_0": _Blocks(16, partial(_five, at=2), _scale),
    "Q5_1": _Blocks(0, partial(_five, at=4), _scale_and_offset),
    "Q8_0": _Blocks(128, _eight, _scale),
    "Q4_K": _Blocks(0, _four_k, _k_scales),
    "Q5_K": _Blocks(0, _five_k, _k_scales),
    "Q6_K": _Blocks(32, _six_k, _six_k_scales),
}
