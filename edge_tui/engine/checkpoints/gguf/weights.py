"""Reads the tensors of GGUF files, dequantised row by row straight into one tensor.

The files are mapped. What exists beside them is the tensor that is read and, for each thread, the working
numbers of a few rows.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edge_tui.engine.checkpoints.gguf.kinds import read_bytes
from edge_tui.engine.checkpoints.weight_files import WeightsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from edge_tui.engine.checkpoints.gguf.header import GgufTensor

_PIECE = 1 << 19
"""Numbers that a thread dequantises at once."""
_THREADS = 8
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufReader:
    """Reads weights by the names that a Hugging Face checkpoint gives them.

    Attributes:
        nbytes: Bytes of all tensors as `read` returns them.

    Args:
        name: As the user names the model.
        tensors: File and description of each tensor.
        heads: Number of heads of each tensor whose rows llama.cpp has interleaved.

    Raises:
        WeightsError: a file cannot be read.
    """

    def __init__(
        self, name: str, tensors: Mapping[str, tuple[Path, GgufTensor]], heads: Mapping[str, int]
    ) -> None:
        self._name, self._tensors, self._heads = name, tensors, heads
        self.nbytes = sum(read_bytes(tensor.kind, tensor.bytes) for _, tensor in tensors.values())
        try:
            self._files: dict[Path, Any] = {
                file: np.memmap(file, np.uint8, "r") for file, _ in tensors.values()
            }
        except (OSError, ValueError) as error:
            raise WeightsError(f"{name} cannot be read ({error}): fetch it again.") from error
        self._pool = ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1), "dequantise")

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
        if name not in self._tensors:
            raise WeightsError(f"{self._name} has no tensor {name}: take another file.")
        file, tensor = self._tensors[name]
        kind, data = tensor.kind, self._files[file]
        if tensor.offset + tensor.bytes > len(data):
            raise WeightsError(f"{file.name} is cut short at {name}: fetch it again.")
        columns = tensor.shape[-1] if len(tensor.shape) > 1 else 1 if not kind.packed else tensor.shape[0]
        row_bytes = columns // kind.block * kind.bytes
        rows = data[tensor.offset : tensor.offset + tensor.bytes].reshape(-1, row_bytes)
        out = torch.empty((len(rows), columns), dtype=_DTYPES.get(kind.name, torch.float32))
        order = _halves(len(rows), self._heads[name]) if name in self._heads else None
        step = max(_PIECE // columns, 1)

        def fill(at: int) -> None:
            piece = rows[at : at + step] if order is None else rows[order[at : at + step]]
            out[at : at + step] = unpack(np.ascontiguousarray(piece), kind.name)

        for _ in self._pool.map(fill, range(0, len(rows), step)):
            pass
        return out.view(tensor.shape)

    def close(self) -> None:
        """Unmaps the files."""
        self._pool.shutdown()
        self._files.clear()


def unpack(rows: np.ndarray[Any, Any], kind: str) -> Tensor:
    """Returns the numbers in the bytes of some rows: float32 for packed kinds, else as they are stored.

    Args:
        rows: uint8 `[rows, bytes]`, contiguous.
        kind: "F16", "Q4_K" …
    """
    if (dtype := _DTYPES.get(kind)) is not None:
        return torch.from_numpy(np.array(rows)).view(dtype)
    from gguf import GGMLQuantizationType, dequantize

    with np.errstate(all="ignore"):  # damaged scales give infinities, as they do in llama.cpp
        return torch.from_numpy(dequantize(rows, GGMLQuantizationType[kind]))


def _halves(rows: int, heads: int) -> np.ndarray[Any, Any]:
    """Returns the order of rows that puts the two rotary halves of each head one after the other."""
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(-1)
