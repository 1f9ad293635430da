"""Reads weights that bitsandbytes has stored quantised, and packs them again as they were.

A matrix lies beside its scales: `W.absmax`, `W.quant_map` and a JSON text of its shape for 4 bits, whose
scales may be quantised themselves (`W.nested_*`), `SCB` for int8. Both are undone here in float32 with
nothing but torch. Packing the result again gives the same codes, because a block's largest number stays its
largest; so neither transformers' own loader nor accelerate, which that asks for, is needed.

Sources: arXiv 2305.14314 (double quantisation), 2208.07339, and the layout that bitsandbytes 0.50 saves.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edge_tui.engine.checkpoints.weight_files import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

    from torch import Tensor

_STATE = ".quant_state.bitsandbytes__"
_BLOCK = 64
"""Weights that share a scale in what we pack."""
_INT8_ROWS = 0
"""The only `weight_format` in use: rows as they are."""


class StoredBits:
    """The quantised matrices of a checkpoint.

    Args:
        names: Of all stored tensors.
        get: Reads one as it is stored.
    """

    def __init__(self, names: Collection[str], get: Callable[[str], Tensor]) -> None:
        self._get = get
        self._names = frozenset(names)
        states = (name.partition(_STATE) for name in names if _STATE in name)
        self._four = {weight: kind for weight, _, kind in states}
        self._eight = frozenset(n.removesuffix("SCB") + "weight" for n in names if n.endswith(".SCB"))
        self.scales = frozenset(name for name in names if self._is_scale(name))
        """Stored tensors that are no weights."""

    def __contains__(self, name: str) -> bool:
        return name in self._four or name in self._eight

    def __iter__(self) -> Iterator[str]:
        return iter((*self._four, *self._eight))

    def read(self, name: str) -> Tensor:
        """A quantised matrix as float32 `[out, in]`.

        Raises:
            WeightsError: its scales are missing or of a layout that is unknown.
        """
        try:
            return self._read_int8(name) if name in self._eight else self._read_4bit(name)
        except WeightsError:
            raise
        except (KeyError, ValueError, TypeError, RuntimeError, IndexError) as error:
            raise _unknown(name, error) from error

    def kind(self, name: str) -> str:
        """How a matrix can be packed again without changing a number: "int8", "nf4", "fp4" or "plain"."""
        if name in self._eight:
            return "int8"
        if name not in self._four:
            return "plain"
        state = self._state(name)
        again = state["blocksize"] == _BLOCK and state["shape"][1] % _BLOCK == 0
        return self._four[name] if again else "plain"

    def _is_scale(self, name: str) -> bool:
        owner = name.rpartition(".weight.")[0] + ".weight"
        if ".weight." in name and owner in self._four:
            return True
        return (
            name.endswith((".SCB", ".weight_format")) and name.rpartition(".")[0] + ".weight" in self._eight
        )

    def _read_int8(self, name: str) -> Tensor:
        base = name.removesuffix("weight")
        layout = base + "weight_format"
        if layout in self._names and int(self._get(layout)) != _INT8_ROWS:
            raise ValueError(f"weight_format {int(self._get(layout))}")
        return self._get(name).float() * (self._get(base + "SCB").float() / 127)[:, None]

    def _read_4bit(self, name: str) -> Tensor:
        import torch

        state = self._state(name)
        scales = self._get(name + ".absmax")
        if "nested_blocksize" in state:
            outer = self._get(name + ".nested_absmax").float()
            inner = self._get(name + ".nested_quant_map").float()[scales.long()]
            each = outer.repeat_interleave(int(state["nested_blocksize"]))[: len(inner)]
            scales = inner * each + float(state["nested_offset"])
        packed = self._get(name).view(torch.uint8).flatten()
        codes = torch.stack((packed >> 4, packed & 15), -1).flatten().long()
        values = self._get(name + ".quant_map").float()[codes]
        shape, size = tuple(state["shape"]), state["blocksize"]
        count = shape[0] * shape[1]
        return (values[:count] * scales.float().repeat_interleave(size)[:count]).view(shape)

    def _state(self, name: str) -> Mapping[str, Any]:
        """The JSON text beside a matrix of 4 bits."""
        try:
            text = bytes(self._get(f"{name}{_STATE}{self._four[name]}").flatten().tolist())
            state: dict[str, Any] = dict(json.loads(text))
            return state | {"shape": [int(n) for n in state["shape"]], "blocksize": int(state["blocksize"])}
        except (KeyError, ValueError, TypeError) as error:
            raise _unknown(name, error) from error


def _unknown(name: str, error: Exception) -> WeightsError:
    return WeightsError(
        f"{name} is quantised by bitsandbytes in a layout that is unknown ({error}); "
        "take the 16-bit checkpoint and load it as int8 or 4bit."
    )
