"""Reads the tensors of GGUF files, dequantised a few rows at a time straight into one tensor.

The files are mapped: what exists beside them is the tensor that is read and the bytes of a few rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from edge_tui.engine.checkpoints.gguf.kinds import read_bytes
from edge_tui.engine.checkpoints.gguf.unpack import read_groups, unpack
from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.checkpoints.weights import empty_on_cpu

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from edge_tui.engine.checkpoints.gguf.header import GgufTensor
    from edge_tui.engine.ops.code_groups import CodeGroups

_PIECE = 1 << 18
"""Numbers that are unpacked at once: a megabyte, which stays in the processor's cache."""
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufReader:
    """Reads weights by the names that a Hugging Face checkpoint gives them.

    Attributes:
        nbytes: Bytes of all tensors as `read` returns them.

    Args:
        name: As the user names the model.
        tensors: File and description of each tensor.
        heads: Number of heads of each tensor whose rows llama.cpp has interleaved.
        norm_offset: Subtracted from the weights of norms.

    Raises:
        WeightsError: a file cannot be read.
    """

    def __init__(
        self,
        name: str,
        tensors: Mapping[str, tuple[Path, GgufTensor]],
        heads: Mapping[str, int],
        norm_offset: float = 0.0,
    ) -> None:
        self._name, self._tensors, self._heads = name, tensors, heads
        self._norm_offset = norm_offset
        self.nbytes = sum(read_bytes(tensor.kind, tensor.bytes) for _, tensor in tensors.values())
        try:
            # Mapped for this process alone: torch wants memory that could be written.
            self._files = {
                file: torch.from_numpy(np.memmap(file, np.uint8, "c"))
                for file in {file for file, _ in tensors.values()}
            }
        except (OSError, ValueError) as error:
            raise WeightsError(f"{name} cannot be read ({error}): fetch it again.") from error

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def names(self) -> list[str]:
        """Returns the names of the weights."""
        return list(self._tensors)

    def read(self, name: str) -> Tensor:
        """Reads a weight, in float32 if it is packed, else as it is stored.

        Raises:
            WeightsError: it is missing, or its file has become shorter.
        """
        tensor, data = self._stored(name)
        kind = tensor.kind
        count = tensor.shape[0] if len(tensor.shape) > 1 or not kind.packed else 1
        rows = data.view(count, -1)
        order = _halves(count, self._heads[name]) if name in self._heads else None
        out = empty_on_cpu(tensor.shape, _DTYPES.get(kind.name, torch.float32))
        results = out.view(count, -1) if kind.packed else out.view(torch.uint8).view(count, -1)
        step = max(_PIECE * count // out.numel(), 1)
        for at in range(0, count, step):
            piece = rows[at : at + step] if order is None else rows[order[at : at + step]]
            result = results[at : at + step]
            if kind.packed:
                unpack(kind.name, piece.reshape(-1, kind.bytes), result.view(-1, kind.block))
            else:
                result.copy_(piece)
        return out.sub_(self._norm_offset) if self._norm_offset and name.endswith("norm.weight") else out

    def read_codes(self, name: str, device: str) -> CodeGroups | None:
        """Reads a packed matrix as codes; None if it is no matrix, or not packed.

        Raises:
            WeightsError: it is missing, or its file has become shorter.
        """
        tensor, data = self._stored(name)
        if not tensor.kind.packed or len(tensor.shape) != 2:
            return None
        rows = tensor.shape[0]
        blocks = data.to(device).view(-1, tensor.kind.bytes)
        groups = read_groups(tensor.kind.name, blocks, rows)
        return groups[_halves(rows, self._heads[name]).to(device)] if name in self._heads else groups

    def close(self) -> None:
        """Unmaps the files."""
        self._files.clear()

    def _stored(self, name: str) -> tuple[GgufTensor, Tensor]:
        """Returns a tensor's description and its bytes."""
        if name not in self._tensors:
            raise WeightsError(f"{self._name} has no tensor {name}: take another file.")
        file, tensor = self._tensors[name]
        data = self._files[file]
        if tensor.offset + tensor.bytes > len(data):
            raise WeightsError(f"{file.name} is cut short at {name}: fetch it again.")
        return tensor, data[tensor.offset : tensor.offset + tensor.bytes]


def _halves(rows: int, heads: int) -> Tensor:
    """Returns the order of rows that puts the two rotary halves of each head one after the other."""
    return torch.arange(rows).view(heads, rows // heads // 2, 2).transpose(1, 2).reshape(-1)
