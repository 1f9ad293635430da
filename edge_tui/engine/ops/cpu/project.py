"""Multiplies by matrices packed for a CPU: int8 and int4, at the speed of the bytes they read.

Which activations meet the packed weights decides the speed. int8 weights meet int8 activations, two of them
for each number: `x ≈ (h + l / 254) · max|x| / 127`, `h` its nearest step and `l` what that leaves. Both are
rows of one integer product, so weights are read once, and what is lost, at most 1 in 64,000 of the largest
activation, is little. Where the processor has no such instructions int8 meets bfloat16, as int4 does
everywhere; with float32 activations those kernels are many times slower.

The integer product is FBGEMM's where it has the instructions. oneDNN's takes the matrix unit of processors
that have one, and while the other half of a core is busy (with another guest of the host, say) that needs 2.6
times as long: 25 ms instead of 10 for Qwen2-0.5B's head, where vectors need 15 instead of 12, and float32 a
fifth more. FBGEMM's packed matrices are no tensors, so they have a place of their own in the arguments.

float32 activations meet float16 weights, where those hold what the file holds: half the bytes, the same
numbers.

The functions that `project` leads to are in the part of Python that TorchScript knows: the fused step calls
them too.

Shapes: `T` tokens, `K` columns that a weight row spans, `N` rows.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.ops.cpu import fbgemm
from edge_tui.engine.ops.cpu.fbgemm import Opaque, half_product, int8_product, multiplies
from edge_tui.engine.ops.cpu.fine_columns import FINER
from edge_tui.engine.ops.cpu.packed_sizes import INT4_GROUP, INT8_STEP, INT8_TOKENS
from edge_tui.machine.devices import cpu_has_half, cpu_has_int8, cpu_has_wide_int8, cpu_packs_int4

BLOCK = 64 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 32
"""Rows that torch interleaves in an int4 matrix."""
_LOST = 2.0**-25
"""By how much float16 may miss a weight: it is what the smallest numbers of a bfloat16 file are missed by."""
_FEW = 64
"""Rows compared at once, so few that their copies leave no holes between packed matrices."""
_PIECE = 4096
"""Rows quantised to int4 at once, which bounds the room for it; a multiple of `BLOCK`."""
_INT8_PIECE = 128
"""The same to int8, so few that the caches hold them. Of 4096, four copies were 0.1 GB beside a head and took
twice the time."""


if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.engine.ops.code_groups import CodeGroups
    from edge_tui.engine.ops.cpu.fine_columns import FineColumns

    PackedOnCpu = tuple[torch.Tensor, torch.Tensor, Opaque | None]
    """Weight, scales and opaque weight, as `project` takes them."""


def project(
    x: torch.Tensor,
    kind: str,
    weight: torch.Tensor,
    scales: torch.Tensor | None,
    bias: torch.Tensor | None,
    opaque: Opaque | None = None,
) -> torch.Tensor:
    """Computes `x Wᵀ + b`: `x` `[T, K]` to `[T, N]` in its dtype.

    Args:
        x: Activations, float32 or bfloat16.
        kind: "plain", "half", "int8", "int8 dot", "int8 vector" or "int4".
        weight: plain: `[N, K]` in the dtype of `x`; others: as the `pack_` function of that kind makes it.
        scales: The same; None for plain.
        bias: `[N]`, or None.
        opaque: The weight of kinds "half" and "int8 vector", as their functions make it; None for others.
    """
    if kind == "half" and opaque is not None:
        y = half_product(x, opaque)
        return y if bias is None else y.add_(bias)
    if scales is None:
        return torch.nn.functional.linear(x, weight, bias)
    if kind == "int8 dot" or kind == "int8 vector":
        y = _int8_dot(x, weight, scales, opaque)
    elif kind == "int8":
        y = _int8(x, weight, scales)
    else:
        y = _int4(x, weight, scales)
    return y if bias is None else y.add_(bias)


def _int8_dot(
    x: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    opaque: Opaque | None,
    most: int = INT8_TOKENS,
) -> torch.Tensor:
    """Computes the integer product, at most `most` tokens at a time."""
    tokens = x.size(0)
    if tokens <= most:
        return _split(x, weight, scales, opaque)
    y = torch.empty([tokens, scales.size(0)], dtype=x.dtype)
    for at in range(0, tokens, most):
        count = min(most, tokens - at)
        y.narrow(0, at, count).copy_(_split(x.narrow(0, at, count), weight, scales, opaque))
    return y


def _split(
    x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, opaque: Opaque | None
) -> torch.Tensor:
    """Multiplies each activation as two integers from -127 to 127, in one product."""
    tokens = x.size(0)
    wide = x if x.dtype == torch.float32 else x.to(torch.float32)  # one that does nothing is 1 % of a step
    step = wide.abs().amax([-1], True).clamp_min_(1e-30).mul_(1 / 127)
    rest = wide / step
    high = rest.round()
    both = torch.cat([high, rest.sub_(high).mul_(254.0)])
    y = _onednn(both, weight, scales) if opaque is None else int8_product(both, opaque)
    y = y.narrow(0, 0, tokens).add_(y.narrow(0, tokens, tokens), alpha=1 / 254).mul_(step)
    return y if x.dtype == torch.float32 else y.to(x.dtype)


def _onednn(both: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    # Raised by 128, because all processors multiply unsigned by signed; cutting off half more rounds.
    both = both.add_(128.5).to(torch.uint8)
    nothing: list[int | float | complex | None] = []
    no_zeros = torch.zeros(1, dtype=torch.int32)
    y: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        both, 1.0, 128, weight, scales, no_zeros, None, 1.0, 0, torch.float32, "none", nothing, ""
    )
    return y


def _int8(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    short = x.to(torch.bfloat16)
    if x.size(1) < weight.size(1):
        short = torch.constant_pad_nd(short, [0, weight.size(1) - x.size(1)])
    if x.size(0) < 16:
        return torch._weight_int8pack_mm(short, weight, scales).to(x.dtype)
    return torch.nn.functional.linear(short, weight.to(torch.bfloat16)).to(x.dtype).mul_(scales)


def _int4(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    short = x.to(torch.bfloat16)
    if x.size(0) < 128:
        group = x.size(1) // scales.size(0)
        return torch._weight_int4pack_mm_for_cpu(short, weight, group, scales).to(x.dtype)
    return torch.mm(short, unpack_int4(weight, scales)).to(x.dtype)


def unpack_int4(weight: torch.Tensor, scales: torch.Tensor, block: int = BLOCK) -> torch.Tensor:
    """Unpacks a matrix to `[K, N]`, transposed, in bfloat16.

    Rows come in blocks; a byte holds, for one column, a row of a block's first half (low) and of its second.
    In a last block that is not full it holds two neighbours.
    """
    rows, columns, half = weight.size(0), 2 * weight.size(1), block // 2
    codes = torch.empty(columns, rows, dtype=torch.bfloat16)
    whole = rows // block
    if whole > 0:
        pairs = weight.narrow(0, 0, whole * block).view(whole, columns, half).transpose(0, 1)
        blocks = codes.narrow(1, 0, whole * block).view(columns, whole, 2, half)
        blocks.select(2, 0).copy_(pairs & 15)
        blocks.select(2, 1).copy_(pairs >> 4)
    rest = rows - whole * block
    if rest > 0:
        pairs = weight.narrow(0, whole * block, rest).reshape(columns, rest // 2)
        last = codes.narrow(1, whole * block, rest).view(columns, rest // 2, 2)
        last.select(2, 0).copy_(pairs & 15)
        last.select(2, 1).copy_(pairs >> 4)
    scale, zero = scales.unsqueeze(1).unbind(-1)
    grouped = codes.sub_(8.0).view(scales.size(0), -1, rows)
    return torch.addcmul(zero, grouped, scale, out=grouped).view(columns, rows)


def pack_int8(weight: torch.Tensor, fine: FineColumns | None = None) -> PackedOnCpu:
    """Packs codes int8 from -127 to 127, and bfloat16 `[N]`, the value of one step of each row.

    Codes are `[N, K]`, or with `fine` columns `[N, K + F]`, with columns of 0 up to the next multiple of 16.
    """
    return *_int8_codes(weight, fine, INT8_STEP, torch.bfloat16), None


def pack_int8_dot(weight: torch.Tensor, fine: FineColumns | None = None) -> PackedOnCpu:
    """Packs the same without columns of 0 and with float32 steps, for the integer product."""
    codes, scales = _int8_codes(weight, fine)
    return torch.ops.onednn.qlinear_prepack(codes, [2, codes.shape[1]]), scales, None


def pack_int8_vector(weight: torch.Tensor, fine: FineColumns | None = None) -> PackedOnCpu:
    """Packs the same with FBGEMM: no codes, the scales, and the packed matrix.

    It keeps three numbers of four bytes for each row, and fills rows up to multiples of `VECTOR_BLOCK`.
    """
    codes, scales = _int8_codes(weight, fine)
    return codes.new_empty(0), scales, fbgemm.pack_codes(codes, scales)


def pack_half(weight: torch.Tensor, rounds: bool = False) -> PackedOnCpu | None:
    """Packs float16 for float32 activations with FBGEMM; None if that loses something and may not: `rounds`.

    It fills up `N` to a multiple of 16, and `K` to one of `packed_sizes.VECTOR_BLOCK`.
    """
    for at in range(0, 0 if rounds else len(weight), _FEW):
        piece = weight[at : at + _FEW]
        if not bool(((piece.half().float() - piece).abs() <= _LOST).all()):
            return None
    return weight.new_empty(0), weight.new_empty(0), fbgemm.pack_half(weight)


def _int8_codes(
    weight: torch.Tensor,
    fine: FineColumns | None = None,
    multiple: int = 1,
    dtype: torch.dtype = torch.float32,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, columns = weight.shape
    width = columns if fine is None else len(fine.factors)
    codes = torch.zeros(rows, width + -width % multiple, dtype=torch.int8)
    scales = torch.empty(rows, dtype=dtype)
    for at in range(0, rows, _INT8_PIECE):
        piece = weight[at : at + _INT8_PIECE].float()
        if fine is not None:
            piece = piece / fine.factors[:columns]
        steps = (piece.abs().amax(1).clamp_(min=1e-12) / 127.0).to(dtype)
        scales[at : at + _INT8_PIECE] = steps
        # By the steps as they are kept, which are rounded by so little that 127 stays 127.
        piece = piece / steps.float()[:, None]
        codes[at : at + _INT8_PIECE, :columns] = whole = piece.round()
        if fine is not None:
            rest = (piece - whole)[:, fine.columns]
            codes[at : at + _INT8_PIECE, columns:width] = rest.mul_(FINER).round_()
    return codes, scales


def pack_int4(weight: torch.Tensor) -> PackedOnCpu:
    """Packs codes uint8 `[N, K/2]`, in torch's order, and the scales and zeros bfloat16 `[K/32, N, 2]`.

    A weight is `(code - 8) · scale + zero`; the ends of a group's range are met exactly up to rounding.
    `N` and `K` must be `fits_int4`.
    """
    packed, scales = [], []
    for at in range(0, len(weight), _PIECE):
        piece = weight[at : at + _PIECE].float().view(-1, weight.shape[1] // INT4_GROUP, INT4_GROUP)
        low, high = piece.amin(-1, keepdim=True), piece.amax(-1, keepdim=True)
        scale = ((high - low) / 15.0).clamp_(min=1e-12).bfloat16()
        zero = (low + 8.0 * scale.float()).bfloat16()
        codes = ((piece - zero.float()) / scale.float()).round_().add_(8.0).clamp_(0.0, 15.0)
        packed.append(torch._convert_weight_to_int4pack_for_cpu(codes.flatten(1).int(), 1))
        scales.append(torch.cat((scale, zero), -1).transpose(0, 1))
    return torch.cat(packed), torch.cat(scales, 1).contiguous(), None


def pack_codes(groups: CodeGroups) -> PackedOnCpu:
    """Packs four-bit codes as they are stored, in the layout of `pack_int4`, with their own groups.

    A weight `S·q − M` is `(q - 8) · S + (8 S − M)`; both factors are rounded to bfloat16, no code changes.
    """
    factors, form = groups.factors(), groups.form
    scale = factors[..., :1]
    if form.least == "own":
        zero = 8.0 * scale - factors[..., 1:]
    else:
        zero = (8.0 - (factors[..., 1:] if form.least == "zero" else form.zero)) * scale
    pieces = (groups.codes[at : at + _PIECE] for at in range(0, len(groups.codes), _PIECE))
    packed = [torch._convert_weight_to_int4pack_for_cpu(piece.int(), 1) for piece in pieces]
    scales = torch.cat((scale, zero), -1).transpose(0, 1).bfloat16()
    return torch.cat(packed), scales.contiguous(), None


PACK_INT8 = {"int8": pack_int8, "int8 dot": pack_int8_dot, "int8 vector": pack_int8_vector}
"""Packs a matrix in each kind of int8, all columns alike or some of them finer."""
PACK: dict[str, Callable[[torch.Tensor], PackedOnCpu]] = {**PACK_INT8, "int4": pack_int4}
"""Packs a matrix in each kind that `project` takes and that holds every matrix."""


@cache
def can_int8_dot() -> bool:
    """Tells whether this processor and torch multiply integers fast, without a sum that overflows."""
    return cpu_has_int8() and multiplies(lambda x, weight: _int8_dot(x, *pack_int8_dot(weight)))


@cache
def can_int8_vector() -> bool:
    """Tells the same of FBGEMM, whose sums overflow where vectors are half as wide."""
    return cpu_has_wide_int8() and multiplies(lambda x, weight: _int8_dot(x, *pack_int8_vector(weight)))


@cache
def can_half() -> bool:
    """Tells whether torch multiplies float32 by packed float16 on this processor."""
    return cpu_has_half() and multiplies(lambda x, weight: half_product(x, fbgemm.pack_half(weight)))


@cache
def can_int4() -> bool:
    """Tells whether torch packs int4 for this processor, in the order that `unpack_int4` knows."""
    if not cpu_packs_int4():
        return False
    rng = torch.Generator().manual_seed(0)
    weight = torch.randint(0, 16, (96, 64), generator=rng).float()
    weight[:, ::INT4_GROUP], weight[:, 1::INT4_GROUP] = 0.0, 15.0  # so that codes are the weights
    try:
        with torch.inference_mode():
            return bool(torch.equal(unpack_int4(*pack_int4(weight)[:2]).float(), weight.t()))
    except (RuntimeError, AttributeError, NotImplementedError):
        return False
