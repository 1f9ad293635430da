"""Reads weights that a checkpoint stores quantised; `ops.quantisation` knows the layouts."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.ops.quantisation import QUANTISATIONS, is_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from torch import Tensor

    from edge_tui.engine.ops.quantisation import Packer


class StoredBits:
    """Reads the quantised matrices of a checkpoint.

    Args:
        names: Of all stored tensors.
        get: Reads one as it is stored.
    """

    def __init__(self, names: Collection[str], get: Callable[[str], Tensor]) -> None:
        self._get = get
        self._stored = {
            name: (kind, layout)
            for kind in QUANTISATIONS.values()
            for name, layout in kind.find(names).items()
        }
        self.scales = frozenset(filter(is_scale, names)) if self._stored else frozenset()
        """Stored tensors that are no weights."""

    def __contains__(self, name: str) -> bool:
        return name in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def read(self, name: str) -> Tensor:
        """Reads a quantised matrix as float32 `[out, in]`.

        Raises:
            WeightsError: its scales are missing or of a layout that is unknown.
        """
        kind, layout = self._stored[name]
        with _refused(name):
            return kind.unpack(name, layout, self._get)

    def packer(self, name: str, device: str) -> Packer | None:
        """Returns what packs a matrix again without changing a number; None if nothing does.

        Raises:
            WeightsError: its layout is unknown.
            PrecisionError: the device cannot run it.
        """
        kind, layout = self._stored[name]
        with _refused(name):
            levels = kind.again(layout, self._get)
        return None if levels is None else kind.packer(device, levels)


@contextmanager
def _refused(name: str) -> Iterator[None]:
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
