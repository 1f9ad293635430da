"""Holds matrices as codes in groups, converts them without loss, and packs them for a GPU's kernels.

`CodeGroups` is what readers of GGUF, AWQ and GPTQ make of their blocks: a byte a code. `pack` lays four or
eight codes into a word, in the order in which `triton.project_groups` takes them apart: a lane's 16 bytes
hold four words; a word holds neighbouring columns, those of the next lane follow them, and the words of one
lane are four lanes' columns apart. So each word of four lanes is one group, or part of one. Within a word the
columns 2i and 2i + 1 lie 16 bits apart: shifted and masked alike they are a pair of 16-bit numbers. Codes of
NF4 lie in the order of their columns, each as the pair of levels that it is of, and which of the two.

All operations are torch's own, on any device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from edge_tui.engine.ops.group_form import NF4, NF4_BLOCK, NF4_LEVELS, OUTER, GroupForm, merged
from edge_tui.engine.ops.packed import PackedMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_BYTES_4 = (0, 4, 1, 5), (2, 6, 3, 7)
"""Columns of a word whose codes are the low, and the high, halves of its bytes."""
_BYTES_NF4 = (0, 2, 4, 6), (1, 3, 5, 7)
"""Those of NF4."""
_BYTES_8 = (0, 2, 1, 3)
"""Columns of a word, byte by byte."""
_HALF_MOST = 65504.0
_LEAST_ABSMAX = 1e-38
"""Divides blocks of zeros."""
_PIECES = 8
"""Most parts of a matrix that are quantised one after another."""
_PART = 1 << 20
"""Least weights of a part: launches for fewer cost more than the room, 12 MB."""


@dataclass(frozen=True, slots=True)
class CodeGroups:
    """Holds a matrix `[N, K]` as codes: `w = S·q − M`, or `w = S·level[q]`.

    Attributes:
        form: Bits, size of a group, kind of subtrahend.
        codes: uint8 `[N, K]`.
        scale: `[N, K / group, 1 or 2]`: S, and M or its number of steps if the form stores one. float16; int8
            where there are outer scales; float32 where codes are numbers of levels.
        outer: float16 `[N, ⌈K / 256⌉, 1 or 2]`, which `scale` is multiplied by; or None.
    """

    form: GroupForm
    codes: Tensor
    scale: Tensor
    outer: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> CodeGroups:
        """Picks rows: `[n]` row numbers."""
        outer = None if self.outer is None else self.outer[rows]
        return CodeGroups(self.form, self.codes[rows], self.scale[rows], outer)

    def factors(self) -> Tensor:
        """Returns S, and what is stored of M, multiplied out: float32 `[N, K / group, 1 or 2]`."""
        if self.outer is None:
            return self.scale.float()
        each = self.outer.float().repeat_interleave(OUTER // self.form.group, 1)
        return self.scale.float() * each[:, : self.scale.shape[1]]

    def dequantise(self) -> Tensor:
        """Computes the weights, float32 `[N, K]`, bit for bit as the format that they come from has it."""
        factors = self.factors()
        if self.form.levels:
            levels = torch.tensor(NF4_LEVELS, device=self.codes.device)[self.codes.int()]
            return levels.view(*factors.shape[:2], self.form.group).mul_(factors).flatten(1)
        scale, least = factors[..., :1], factors[..., 1:]
        weights = self.codes.float().view(*factors.shape[:2], self.form.group)
        if self.form.least == "own":
            return weights.mul_(scale).sub_(least).flatten(1)
        return weights.sub_(self.form.zero if self.form.least == "none" else least).mul_(scale).flatten(1)

    def to_form(self, form: GroupForm) -> CodeGroups:
        """Writes the same weights in a form that `merged` made of theirs and others.

        Raises:
            OverflowError: a subtrahend is no float16.
        """
        own, codes, scale, outer = self.form, self.codes, self.scale, self.outer
        if form.least == own.least == "none":
            codes = codes + (form.zero - own.zero)  # what stands for 0 moves with the width
        elif own.least == "none":
            codes, scale, outer = self._with_least(form)
        scale = scale.repeat_interleave(own.group // form.group, 1)
        return CodeGroups(form, codes, scale, outer)

    def _with_least(self, form: GroupForm) -> tuple[Tensor, Tensor, Tensor | None]:
        """Stores the subtrahends: S times the code of weight 0, which is a power of two as small as can be.

        So both it and `S·q` are exact.
        """
        least = self.form.zero
        while least > 1 and int(self.codes.min()) >= self.form.zero - least // 2:
            least //= 2
        codes = self.codes - (self.form.zero - least)
        if form.least == "zero":
            return codes, torch.cat((self.scale, torch.full_like(self.scale, least)), -1), self.outer
        steps = self.scale if self.outer is None else self.outer
        if bool((steps.float().abs() * least > _HALF_MOST).any()):
            raise OverflowError("a subtrahend is no float16")
        both = torch.cat((steps, steps * least), -1)
        return (codes, both, None) if self.outer is None else (codes, self.scale.repeat(1, 1, 2), both)


def stack(parts: Sequence[CodeGroups]) -> CodeGroups | None:
    """Puts matrices of equal width below one another; None if no form holds them all."""
    form = merged([part.form for part in parts])
    if form is None:
        return None
    try:
        parts = [part if part.form == form else part.to_form(form) for part in parts]
    except OverflowError:
        return None
    if len(parts) == 1:
        return parts[0]
    outer = [part.outer for part in parts if part.outer is not None]
    return CodeGroups(
        form,
        torch.cat([part.codes for part in parts]),
        torch.cat([part.scale for part in parts]),
        torch.cat(outer) if outer else None,
    )


def pack(groups: CodeGroups, bias: Tensor | None = None) -> PackedMatrix:
    """Packs a matrix for `triton.project_groups`, with columns of weight 0 up to whole chunks.

    Args:
        groups: The matrix.
        bias: `[N]` in the compute dtype, or None.
    """
    form = groups.form
    rows, columns = groups.codes.shape
    missing = form.padded(columns) - columns
    pad = partial(F.pad, value=0)
    codes = pad(_in_pairs(groups.codes) if form.levels else groups.codes, (0, missing))
    scale = pad(groups.scale, (0, 0, 0, missing // form.group))
    outer = groups.outer
    if outer is not None:
        spans = -(-(columns + missing) // OUTER)
        outer = pad(outer, (0, 0, 0, spans - outer.shape[1])).contiguous()
    lanes = codes.view(rows, -1, 4, 4, 32 // form.bits).transpose(2, 3)
    if form.bits == 4:
        low, high = (lanes[..., list(order)] for order in (_BYTES_NF4 if form.levels else _BYTES_4))
        words = high.bitwise_left_shift_(4).bitwise_or_(low)
    else:
        words = lanes[..., list(_BYTES_8)]
    words = words.reshape(rows, -1).view(torch.int32)
    return PackedMatrix(form.kind, words, scale.contiguous(), bias, rows, columns, outer, form)


def quantise_nf4(weight: Tensor) -> CodeGroups:
    """Rounds a matrix `[N, K]` of whole blocks to NF4, on its device: to bitsandbytes' codes and scales.

    A load need not wait for that library then. Room is taken for one part of the matrix at once.
    """
    rows, columns = weight.shape
    codes = torch.empty(rows, columns, dtype=torch.uint8, device=weight.device)
    scale = torch.empty(rows, columns // NF4_BLOCK, 1, device=weight.device)
    middles = _middles(weight.device)
    count = max(-(-rows // _PIECES), _PART // columns)
    for at in range(0, rows, count):
        some = slice(at, at + count)
        shares = weight[some].to(torch.float32, copy=True).view(-1, columns // NF4_BLOCK, NF4_BLOCK)
        torch.amax(shares.abs(), -1, keepdim=True, out=scale[some])
        shares.div_(scale[some].clamp(min=_LEAST_ABSMAX))
        codes[some] = torch.bucketize(shares, middles, out_int32=True).flatten(1)
    return CodeGroups(NF4, codes, scale)


@cache
def _middles(device: torch.device) -> Tensor:
    """Returns the numbers half-way between neighbouring levels of NF4; the first call waits."""
    return torch.tensor([sum(pair) / 2 for pair in pairwise(NF4_LEVELS)], device=device)


def _in_pairs(codes: Tensor) -> Tensor:
    """Writes codes of NF4 as kernels look them up: the pair of neighbouring levels, and 8 for the smaller."""
    smaller = codes.bitwise_xor(codes >> 3).bitwise_and_(1)
    return (codes >> 1).bitwise_or_(smaller.bitwise_left_shift_(3))


def _from_pairs(codes: Tensor) -> Tensor:
    """Undoes `_in_pairs`."""
    pair = codes & 7
    return codes.bitwise_right_shift(3).bitwise_xor_(pair >> 2).bitwise_or_(pair << 1)


def levels_of_words() -> Tensor:
    """Returns the levels that the codes of NF4 in words stand for, float32 `[16]`."""
    return torch.tensor(NF4_LEVELS)[_from_pairs(torch.arange(16)).long()]


def unpack(packed: PackedMatrix) -> CodeGroups:
    """Takes a packed matrix apart again."""
    assert packed.form is not None, f"{packed.kind} is no kind of codes in groups"
    assert packed.scale is not None
    form = packed.form
    words = packed.weight.view(torch.uint8).view(packed.rows, -1, 4, 4, 4).transpose(2, 3)
    if form.bits == 4:
        first, second = _BYTES_NF4 if form.levels else _BYTES_4
        order = torch.tensor([*first, *second], device=words.device).argsort()
        codes = torch.cat((words & 15, words >> 4), -1)[..., order]
    else:
        codes = words[..., torch.tensor(_BYTES_8, device=words.device).argsort()]
    codes = codes.reshape(packed.rows, -1)[:, : packed.columns]
    if form.levels:
        codes = _from_pairs(codes)
    outer = packed.outer
    if outer is not None:
        outer = outer[:, : -(-packed.columns // OUTER)]
    return CodeGroups(form, codes, packed.scale[:, : packed.columns // form.group], outer)
