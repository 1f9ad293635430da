"""Reads a checkpoint's tensors one at a time, straight to where they will live.

Shards are mapped, not loaded, so filling a fused matrix needs the matrix and one tensor, never two models.
"""

from __future__ import annotations

import json
import mmap
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.stored_bits import StoredBits
from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

__all__ = ["INDEX", "SINGLE", "Weights", "check_shards", "shard_files"]

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_LARGE = 1 << 20
"""Bytes from which on a tensor has memory of its own."""
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
)


class Weights:
    """The tensors of a checkpoint folder.

    Args:
        folder: Holds `model.safetensors`, or shards with their index.
        device: Where tensors go.
        dtype: What they become.
        progress: Called with (bytes read, bytes in all) after each tensor.
        cancelled: Asked before each tensor.

    Raises:
        WeightsError: a file is missing, cut short or no safetensors file.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        dtype: torch.dtype,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._progress = progress
        self._cancelled = cancelled
        self._where: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        for file in shard_files(folder):
            self._open[file] = handle = _open(file)
            for name in handle.keys():  # noqa: SIM118 — a handle is not a mapping
                self._where[name] = file
        self._folder = folder
        self.bits = StoredBits(self._where, self.stored)
        self._read = 0
        self._total = sum(file.stat().st_size for file in self._open)

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def get(self, name: str, *shape: int) -> Tensor:
        """One tensor of a known shape, copied to the device.

        Raises:
            WeightsError: it is missing, unreadable or of another shape.
            Cancelled: the user stopped the loading.
        """
        return self.stack([name], [shape[0]], *shape[1:])

    def stack(self, names: list[str], rows: list[int], *rest: int) -> Tensor:
        """Several tensors below one another, each written straight into its place.

        Args:
            names: Of the tensors.
            rows: Their first dimensions.
            *rest: The dimensions they share.
        """
        out = self._empty(sum(rows), *rest)
        at = 0
        for name, count in zip(names, rows, strict=True):
            out[at : at + count].copy_(self._tensor(name, (count, *rest)))
            at += count
        return out

    def _empty(self, *shape: int) -> Tensor:
        """A tensor; a large one on a CPU has memory of its own, which goes back to the system with it.

        What is packed gives its place free among the packed matrices. Shared with them, it would stay theirs:
        0.9 GB beside 1.3 GB of Qwen2-0.5B.
        """
        import torch

        count = prod(shape)
        if self.device != "cpu" or count * self.dtype.itemsize < _LARGE:
            return torch.empty(shape, dtype=self.dtype, device=self.device)
        room = mmap.mmap(-1, count * self.dtype.itemsize, **_PRIVATE)
        return torch.frombuffer(room, dtype=self.dtype, count=count).view(shape)

    def names(self) -> list[str]:
        """Names of the weights; scales of quantised ones are none."""
        return [name for name in self._where if name not in self.bits.scales]

    def stored(self, name: str) -> Tensor:
        """A tensor as it lies in its file.

        Raises:
            WeightsError: it is missing or unreadable.
        """
        file = self._where.get(name)
        if file is None:
            raise WeightsError(f"{self._folder.name} has no tensor {name}: its shards are incomplete.")
        try:
            tensor: Tensor = self._open[file].get_tensor(name)
        except Exception as error:
            raise WeightsError(f"{file.name} cannot be read at {name} ({error}): fetch it again.") from error
        return tensor

    def close(self) -> None:
        """Unmaps the shards."""
        self._open.clear()

    def _tensor(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled
        tensor = self.bits.read(name) if name in self.bits else self.stored(name)
        if tuple(tensor.shape) != shape:
            raise WeightsError(
                f"{name} in {self._where[name].name} has shape {list(tensor.shape)}, "
                f"but config.json wants {list(shape)}."
            )
        self._read += tensor.numel() * tensor.element_size()
        if self._progress is not None:
            self._progress(min(self._read, self._total), self._total)
        return tensor


def shard_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order.

    Raises:
        WeightsError: there are none, the index cannot be read, or it names a file that is not there.
    """
    index = folder / INDEX
    if not index.exists():
        if not (folder / SINGLE).exists():
            raise WeightsError(f"{folder.name} has neither {SINGLE} nor {INDEX}.")
        return [folder / SINGLE]
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{INDEX} of {folder.name} cannot be read: fetch it again.") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{INDEX} of {folder.name} names a file outside its folder.")
        if not (folder / name).exists():
            raise WeightsError(f"{name} of {folder.name} is missing: fetch it again.")
    return [folder / name for name in names]


def check_shards(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, each known to be whole.

    Raises:
        WeightsError: one is missing, cut short or no safetensors file.
    """
    files = shard_files(folder)
    for file in files:
        _open(file)
    return files


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} is cut short or damaged ({error}): fetch it again.") from error
