"""Reads matrices that AWQ, GPTQ or AutoRound stored as codes, dequantised a few outputs at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.checkpoints.weights import empty_on_cpu
from edge_tui.engine.ops.code_groups import CodeGroups
from edge_tui.util.sanitise import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.checkpoints.group_codes import CodedMatrix, GroupCodes, GroupFormat
    from edge_tui.engine.checkpoints.source import TensorReader

_PIECE = 1 << 17
"""Weights that are unpacked at once: half a megabyte, which stays in the processor's cache."""


class GroupCodesReader:
    """Reads weights by their names, those that are stored as codes in float32 `[out, in]`.

    Attributes:
        nbytes: Bytes of all tensors as `read` returns them.

    Args:
        reader: Reads the stored tensors; `close` closes it.
        codes: The matrices that are stored as codes.
        plain_bytes: Bytes of all other tensors.

    Raises:
        WeightsError: an input belongs to a group that is not there.
    """

    def __init__(self, reader: TensorReader, codes: GroupCodes, plain_bytes: int) -> None:
        self._reader, self._form, self._matrices = reader, codes.form, codes.matrices
        self.nbytes = plain_bytes + sum(4 * m.rows * m.columns for m in self._matrices.values())
        self._groups = {name: self._read_groups(matrix) for name, matrix in self._matrices.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._matrices or name in self._reader

    def names(self) -> list[str]:
        """Returns the names of the weights.

        A bias of zeros is none: files of GPTQ hold one beside each matrix, whatever the architecture.
        """
        matrices = self._matrices.values()
        parts = {part for matrix in matrices for part in matrix.parts}
        biases = {f"{matrix.base}.bias" for matrix in matrices}
        plain = [name for name in self._reader.names() if name not in parts]
        plain = [name for name in plain if name not in biases or self._reader.read(name).any()]
        return [*plain, *self._matrices]

    def read(self, name: str) -> Tensor:
        """Reads a weight as it is stored, or in float32 `[out, in]` where it is stored as codes.

        Raises:
            WeightsError: it is missing or unreadable.
        """
        if name not in self._matrices:
            return self._reader.read(name)
        matrix, form, groups = self._matrices[name], self._form, self._groups[name]
        codes, zeros, scales = (self._reader.read(part) for part in matrix.parts[:3])
        zeros = _codes_of(zeros, form).flatten(1)[:, : matrix.rows].t().float() + form.zero_offset
        scales = scales.t().float()
        out = empty_on_cpu((matrix.rows, matrix.columns), torch.float32)
        per = len(form.shifts)
        step = max(_PIECE // matrix.columns // per, 1) * per
        for at in range(0, matrix.rows, step):
            piece = out[at : at + step]
            _unpack(codes, form, at, piece)
            _scale(piece, zeros[at : at + step], scales[at : at + step], groups, matrix.group_size)
        return out

    def read_codes(self, name: str, device: str) -> CodeGroups | None:
        """Reads a matrix as codes; None if it is not stored so, or its groups are not in order.

        Raises:
            WeightsError: it is missing or unreadable.
        """
        matrix, form = self._matrices.get(name), self._form
        if matrix is None or matrix.form is None or self._groups[name] is not None:
            return None
        packed, zeros, scales = (self._reader.read(part).to(device) for part in matrix.parts[:3])
        codes = torch.empty(matrix.rows, matrix.columns, dtype=torch.uint8, device=device)
        _unpack(packed, form, 0, codes)
        zeros = _codes_of(zeros, form).flatten(1)[:, : matrix.rows] + form.zero_offset
        both = torch.stack((scales, zeros.half()), -1).transpose(0, 1)
        repeats = matrix.group_size // matrix.form.group
        return CodeGroups(matrix.form, codes, both.repeat_interleave(repeats, 1))

    def close(self) -> None:
        """Unmaps the files."""
        self._reader.close()

    def _read_groups(self, matrix: CodedMatrix) -> Tensor | None:
        """Reads the group of each input, int64 `[in]`; None if they are in order, and all of one size."""
        in_order = torch.arange(matrix.columns) // matrix.group_size
        groups = self._reader.read(matrix.parts[3]).long() if matrix.has_groups else in_order
        first, last = int(groups.min()), int(groups.max())
        if first < 0 or last >= matrix.groups:
            raise WeightsError(
                f"{one_line(matrix.parts[3])[:80]} names groups from {first:,} to {last:,}, but there are "
                f"{matrix.groups:,}; fetch the checkpoint again."
            )
        even = matrix.columns % matrix.group_size == 0
        return None if even and torch.equal(groups, in_order) else groups


def _codes_of(packed: Tensor, form: GroupFormat) -> Tensor:
    """Takes int32 `[…]` apart: `[…, codes in an int32]`."""
    shifts = torch.tensor(form.shifts, dtype=torch.int32, device=packed.device)
    return packed[..., None] >> shifts & ((1 << form.bits) - 1)


def _unpack(packed: Tensor, form: GroupFormat, at: int, out: Tensor) -> None:
    """Writes the codes of some outputs.

    Args:
        packed: int32, `[in, out / n]` where a format packs outputs, else `[in / n, out]`.
        form: Where the bits of a code lie.
        at: The first output.
        out: float32 or uint8 `[outputs, in]`, contiguous; receives the codes.
    """
    per, mask = len(form.shifts), (1 << form.bits) - 1
    if form.packs_outputs:
        words = packed[:, at // per : (at + len(out)) // per].t().contiguous()
        places = out.view(-1, per, out.shape[1]).unbind(1)
    else:
        words = packed[:, at : at + len(out)].t().contiguous()
        places = out.view(len(out), -1, per).unbind(2)
    for place, shift in zip(places, form.shifts, strict=True):
        place.copy_(words >> shift & mask)


def _scale(out: Tensor, zeros: Tensor, scales: Tensor, groups: Tensor | None, group_size: int) -> None:
    """Subtracts zero points from codes `[outputs, in]` and multiplies by scales, both `[outputs, groups]`."""
    if groups is None:
        out.view(len(out), -1, group_size).sub_(zeros[:, :, None]).mul_(scales[:, :, None])
    else:
        out.sub_(zeros[:, groups]).mul_(scales[:, groups])
