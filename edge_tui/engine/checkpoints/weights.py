"""Reads a checkpoint's tensors one at a time, straight to where they will live.

Shards are mapped, not loaded, so filling a fused matrix needs the matrix and one tensor, never two models.
"""

from __future__ import annotations

import mmap
from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.staging import Staging
from edge_tui.engine.checkpoints.weight_files import WeightsError, shard_files
from edge_tui.engine.ops.quantisation import QUANTISATIONS, is_scale
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import Tensor

    from edge_tui.engine.checkpoints.source import TensorReader
    from edge_tui.engine.ops.code_groups import CodeGroups
    from edge_tui.engine.ops.quantisation import Packer

_LARGE = 1 << 20
"""Bytes from which on a tensor has memory of its own."""
_PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}
)


class SafetensorsReader:
    """Reads the tensors of a folder with `model.safetensors`, or shards with their index.

    Attributes:
        nbytes: Bytes of the files.
        quantised: Kind and layout of each weight that is stored quantised; `ops.quantisation` knows them.

    Args:
        name: As the user names the checkpoint.
        path: The folder.

    Raises:
        CheckpointError: a file is missing.
        WeightsError: a file is cut short or no safetensors file.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._file: dict[str, Path] = {}
        self._handles = {file: _open(file) for file in shard_files(name, path)}
        for file, handle in self._handles.items():
            self._file |= dict.fromkeys(handle.keys(), file)
        self.nbytes = sum(file.stat().st_size for file in self._handles)
        self.quantised = {
            tensor: (kind, layout)
            for kind in QUANTISATIONS.values()
            for tensor, layout in kind.find(self._file).items()
        }

    def __contains__(self, name: str) -> bool:
        return name in self._file

    def names(self) -> list[str]:
        """Returns the names of the weights; scales of quantised ones are none."""
        return [name for name in self._file if not (self.quantised and is_scale(name))]

    def read(self, name: str) -> Tensor:
        """Reads a weight as it is stored, or in float32 `[out, in]` where it is stored quantised.

        Raises:
            WeightsError: it is missing, unreadable or of a layout that is unknown.
        """
        if name not in self.quantised:
            return self._stored(name)
        kind, layout = self.quantised[name]
        with _refuse_unknown_layout(name):
            return kind.unpack(name, layout, self._stored)

    def read_codes(self, name: str, device: str) -> None:
        """Returns None: bitsandbytes stores other codes."""

    def packer(self, name: str, device: str) -> Packer | None:
        """Returns what packs a quantised matrix again without changing a number; None if nothing does.

        Raises:
            WeightsError: its layout is unknown.
            PrecisionError: the device cannot run it.
        """
        kind, layout = self.quantised[name]
        with _refuse_unknown_layout(name):
            levels = kind.levels_to_repack(layout, self._stored)
        return None if levels is None else kind.packer(device, levels)

    def close(self) -> None:
        """Unmaps the shards."""
        self._handles.clear()

    def _stored(self, name: str) -> Tensor:
        file = self._file.get(name)
        if file is None:
            raise WeightsError(f"{self._name} has no tensor {name}: its shards are incomplete.")
        try:
            tensor: Tensor = self._handles[file].get_tensor(name)
        except Exception as error:
            raise WeightsError(f"{file.name} cannot be read at {name} ({error}): fetch it again.") from error
        return tensor


class Weights:
    """Copies tensors of a source to a device, in one dtype.

    Args:
        reader: The source's tensors.
        device: The device that they go to.
        dtype: Their dtype there.
        progress: Called with (bytes read, bytes in all) after each tensor.
        cancelled: Called before each tensor.
    """

    def __init__(
        self,
        reader: TensorReader,
        device: str,
        dtype: torch.dtype,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._reader = reader
        self._progress = progress
        self._cancelled = cancelled
        self._staging = Staging()
        self._read = 0
        self._names: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._reader

    def get(self, name: str, *shape: int) -> Tensor:
        """Returns one tensor of a known shape.

        Raises:
            WeightsError: it is missing, unreadable or of another shape.
            Cancelled: the user stopped the loading.
        """
        return self.stack([name], [shape[0]], *shape[1:])

    def stack(self, names: list[str], rows: list[int], *rest: int) -> Tensor:
        """Returns several tensors below one another, each read straight into its place.

        Args:
            names: Of the tensors.
            rows: Their first dimensions.
            *rest: The dimensions they share.
        """
        out = self._empty(sum(rows), *rest)
        at = 0
        for name, count in zip(names, rows, strict=True):
            self._stop_if_cancelled()
            tensor = self.read(name, (count, *rest))
            self._names.add(name)
            self._copy(out[at : at + count], tensor)
            at += count
            self._count(tensor.nbytes)
        return out

    def _copy(self, target: Tensor, source: Tensor) -> None:
        """Copies a tensor to its place: from the host to a GPU in pieces where it is large."""
        if target.is_cuda and not source.is_cuda and self._staging.fits(target, source):
            self._staging.copy(target, source)
        else:
            target.copy_(source)

    def stack_codes(self, names: list[str], rows: list[int], columns: int) -> CodeGroups | None:
        """Returns several matrices below one another as codes; None if one is not stored so, or differs.

        Args:
            names: Of the matrices.
            rows: Their rows.
            columns: The columns they share.
        """
        parts = []
        for name, count in zip(names, rows, strict=True):
            self._stop_if_cancelled()
            part = self._reader.read_codes(name, self.device)
            if part is None:
                return None
            self._check_shape(name, part.codes.shape, (count, columns))
            parts.append(part)
        from edge_tui.engine.ops.code_groups import stack

        whole = stack(parts)
        if whole is not None:
            self._names.update(names)
            self._count(whole.codes.numel() * 4)  # as wide as it would have been read
        return whole

    def unread(self) -> list[str]:
        """Returns the names of the weights that have not been read."""
        return [name for name in self._reader.names() if name not in self._names]

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Reads one tensor, wherever it is to go."""
        tensor = self._reader.read(name)
        self._check_shape(name, tensor.shape, shape)
        return tensor

    def _check_shape(self, name: str, shape: Sequence[int], wanted: tuple[int, ...]) -> None:
        if tuple(shape) != wanted:
            raise WeightsError(
                f"{name} has shape {list(shape)}, but its configuration wants {list(wanted)}: "
                "fetch the checkpoint again."
            )

    def _stop_if_cancelled(self) -> None:
        if self._cancelled is not None and self._cancelled():
            raise Cancelled

    def _count(self, nbytes: int) -> None:
        """Tells the progress."""
        self._read += nbytes
        if self._progress is not None:
            self._progress(min(self._read, self._reader.nbytes), self._reader.nbytes)

    def _empty(self, *shape: int) -> Tensor:
        """Allocates a tensor; a large one on a CPU has a mapping of its own, which goes back with it.

        What is packed gives its place free among the packed matrices. Shared with them, it would stay theirs:
        0.9 GB beside 1.3 GB of Qwen2-0.5B.
        """
        import torch

        if self.device == "cpu":
            return empty_on_cpu(shape, self.dtype)
        return torch.empty(shape, dtype=self.dtype, device=self.device)


def empty_on_cpu(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Allocates a tensor; a large one has a mapping of its own, which goes back to the system with it."""
    import torch

    count = prod(shape)
    if count * dtype.itemsize < _LARGE:
        return torch.empty(shape, dtype=dtype)
    mapping = mmap.mmap(-1, count * dtype.itemsize, **_PRIVATE)
    return torch.frombuffer(mapping, dtype=dtype, count=count).view(shape)


@contextmanager
def _refuse_unknown_layout(name: str) -> Iterator[None]:
    """Turns whatever a strange layout raises into one sentence."""
    try:
        yield
    except WeightsError:
        raise
    except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
        raise WeightsError(
            f"{name} is quantised by bitsandbytes in a layout that is unknown ({error}); "
            "take the 16-bit checkpoint and load it as int8 or 4bit."
        ) from error


def _open(file: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file.name} is cut short or damaged ({error}): fetch it again.") from error
