"""Defines the kinds of quantised matrices, `INT8` and `FOUR_BIT`: all that tells one from the other.

A kind recognises and unpacks what bitsandbytes stored, says where it runs, packs a matrix for a device, and
counts the bytes of that. A matrix that `packer` makes holds its kernel (`ops.linear`). The module
imports no torch.

A stored matrix lies beside its scales: `W.absmax`, `W.quant_map` and a JSON text of its shape for 4 bits,
whose scales may be quantised themselves (`W.nested_*`), `SCB` for int8. Both are undone here in float32 with
nothing but torch. Packing the result again gives the same codes, because a block's largest number stays its
largest; so neither transformers' own loader nor accelerate, which that asks for, is needed.

Sources: arXiv 2305.14314 (double quantisation), 2208.07339, and the layout that bitsandbytes 0.50 saves.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from edge_tui.engine.ops.cpu import packed_sizes
from edge_tui.engine.ops.group_form import NF4, NF4_BLOCK
from edge_tui.engine.ops.packed import PrecisionError
from edge_tui.machine.devices import cpu_has_int8, cpu_packs_int4

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import Tensor

    from edge_tui.engine.ops.linear import Linear

    Packer = Callable[[Tensor, Tensor | None], Linear]
    """Packs a weight `[out, in]` and a bias."""
    Get = Callable[[str], Tensor]
    """Reads a tensor as it is stored."""

_SCALE = re.compile(r"\.weight\.\w|\.SCB$|\.weight_format$")
_STATE = ".quant_state.bitsandbytes__"
_INT8_ROWS = 0
"""The only `weight_format` in use: rows as they are."""


class Quantisation(ABC):
    """Knows everything about one kind of quantised matrix."""

    name: ClassVar[str]
    """As `ModelSpec.precision` names it."""
    per_byte: ClassVar[int]
    """Stored weights in a byte."""
    key: ClassVar[str]
    """True in a config.json whose weights are stored in this kind."""
    wide_copy: ClassVar[int]
    """Bytes of each weight that packing for a GPU takes beside what was read."""

    def is_declared(self, quantization_config: Mapping[str, Any]) -> bool:
        """Tells whether a config.json says that its weights are of this kind."""
        return bool(quantization_config.get(self.key) or quantization_config.get(f"_{self.key}"))

    @abstractmethod
    def find(self, names: Collection[str]) -> dict[str, str]:
        """Maps each weight of this kind among all stored tensors to the tensor with its layout, or to ""."""

    @abstractmethod
    def unpack(self, name: str, layout: str, get: Get) -> Tensor:
        """Reads a stored matrix as float32 `[out, in]`.

        Raises:
            KeyError, ValueError, TypeError, RuntimeError, IndexError: its layout is unknown.
        """

    @abstractmethod
    def levels_to_repack(self, layout: str, get: Get) -> str | None:
        """Returns the levels to pack a stored matrix with so that no number changes; None if there are none.

        Raises:
            KeyError, ValueError, TypeError: its layout is unknown.
        """

    def refusal(self, device: str) -> str | None:
        """Tells why a device cannot run this kind, in one sentence; None if it can."""
        if device == "mps":
            return "bitsandbytes has no kernels for Apple GPUs: choose float16."
        if not self._is_ours(device) and find_spec("bitsandbytes") is None:
            return "bitsandbytes is not installed: choose bfloat16, or install it."
        return None

    @abstractmethod
    def _is_ours(self, device: str) -> bool:
        """Tells whether a device runs this kind without bitsandbytes."""

    @abstractmethod
    def packer(self, device: str, levels: str | None = None) -> Packer:
        """Returns what packs a matrix for a device, with a stored matrix's levels or in the fastest way.

        Raises:
            PrecisionError: the device cannot run it, or, when a matrix is packed, not in this shape.
        """

    def _check(self, device: str) -> None:
        if device != "cpu" and not device.startswith("cuda"):
            raise PrecisionError(f"{self.name} needs an NVIDIA GPU or a CPU, not {device}: choose bfloat16.")

    @abstractmethod
    def nbytes(self, rows: int, columns: int, device: str) -> int:
        """Counts the bytes of a packed matrix with its scales."""

    @abstractmethod
    def widened_bytes(self, largest: int, shapes: Sequence[tuple[int, int]], device: str) -> int:
        """Counts what a chunk of a prompt takes for one matrix in 16 bits.

        Args:
            largest: Elements of the largest matrix of a layer.
            shapes: Rows and columns of a layer's matrices; none where they are not known.
            device: Their device.
        """


class _Int8(Quantisation):
    """Knows eight bits: a scale for each row; on a GPU LLM.int8, with outliers in 16 bits."""

    name = "int8"
    per_byte = 1
    key = "load_in_8bit"
    wide_copy = 2

    def find(self, names: Collection[str]) -> dict[str, str]:
        bases = [name.removesuffix("SCB") for name in names if name.endswith(".SCB")]
        return {f"{b}weight": f"{b}weight_format" if f"{b}weight_format" in names else "" for b in bases}

    def unpack(self, name: str, layout: str, get: Get) -> Tensor:
        """Multiplies each row of codes by its scale."""
        if layout and int(get(layout)) != _INT8_ROWS:
            raise ValueError(f"weight_format {int(get(layout))}")
        base = name.removesuffix("weight")
        return get(name).float() * (get(base + "SCB").float() / 127)[:, None]

    def levels_to_repack(self, layout: str, get: Get) -> str:
        return self.name

    def _is_ours(self, device: str) -> bool:
        return device == "cpu"

    def packer(self, device: str, levels: str | None = None) -> Packer:
        from edge_tui.engine.ops import linear

        if device == "cpu":
            return linear.int8_on_cpu
        if device == "meta":
            return partial(linear.EmptyLinear, self.name)
        self._check(device)
        linear.check_bitsandbytes(self.name)
        return linear.LlmInt8

    def nbytes(self, rows: int, columns: int, device: str) -> int:
        return packed_sizes.int8_bytes(rows, columns) if device == "cpu" else rows * columns + 4 * rows

    def widened_bytes(self, largest: int, shapes: Sequence[tuple[int, int]], device: str) -> int:
        if device != "cpu":
            return 0
        if not shapes or not cpu_has_int8():
            return 2 * largest
        is_worth_packing = packed_sizes.is_worth_packing
        widened = max((n * k for n, k in shapes if not is_worth_packing(n * k)), default=0)
        # Integer products have two rows for each token, and are summed as int32 first.
        summed = max((n for n, k in shapes if is_worth_packing(n * k)), default=0)
        return 2 * max(widened, packed_sizes.INT8_TOKENS * (4 + 4) * summed)


class _FourBit(Quantisation):
    """Knows four bits: NF4 of bitsandbytes, or on a CPU int4 with a scale and a zero for 32 weights."""

    name = "4bit"
    per_byte = 2
    key = "load_in_4bit"
    wide_copy = 4

    def find(self, names: Collection[str]) -> dict[str, str]:
        return {name.partition(_STATE)[0]: name for name in names if _STATE in name}

    def unpack(self, name: str, layout: str, get: Get) -> Tensor:
        """Looks each code up among the levels, and multiplies by the absmax of its block."""
        import torch

        state = self._state(layout, get)
        scales = get(name + ".absmax")
        if "nested_blocksize" in state:
            outer = get(name + ".nested_absmax").float()
            inner = get(name + ".nested_quant_map").float()[scales.long()]
            each = outer.repeat_interleave(int(state["nested_blocksize"]))[: len(inner)]
            scales = inner * each + float(state["nested_offset"])
        packed = get(name).view(torch.uint8).flatten()
        codes = torch.stack((packed >> 4, packed & 15), -1).flatten().long()
        values = get(name + ".quant_map").float()[codes]
        rows, columns = state["shape"]
        count = rows * columns
        each = scales.float().repeat_interleave(state["blocksize"])[:count]
        return (values[:count] * each).view(rows, columns)

    def levels_to_repack(self, layout: str, get: Get) -> str | None:
        state = self._state(layout, get)
        same = state["blocksize"] == NF4_BLOCK and state["shape"][1] % NF4_BLOCK == 0
        return layout.partition(_STATE)[2] if same else None

    def _is_ours(self, device: str) -> bool:
        return device == "cpu" and cpu_packs_int4()

    def packer(self, device: str, levels: str | None = None) -> Packer:
        from edge_tui.engine.ops import linear

        if device == "cpu" and levels is None:
            return linear.int4_on_cpu
        if device == "meta":
            return partial(linear.EmptyLinear, "nf4")
        self._check(device)
        if levels != "fp4" and device != "cpu":
            return linear.nf4_on_gpu
        linear.check_bitsandbytes(self.name)
        return linear.Fp4 if levels == "fp4" else linear.Nf4

    def nbytes(self, rows: int, columns: int, device: str) -> int:
        if device == "cpu":
            if (packed := packed_sizes.int4_bytes(rows, columns)) is not None:
                return packed
            columns += -columns % NF4_BLOCK
        elif columns % NF4_BLOCK == 0:
            columns = NF4.padded(columns)
        elements = rows * columns
        return -(-elements // 2) + 4 * -(-elements // NF4_BLOCK) + 64  # a scale a block, and the code book

    def widened_bytes(self, largest: int, shapes: Sequence[tuple[int, int]], device: str) -> int:
        # A CPU takes the codes apart first.
        return 2 * largest + (0 if device.startswith("cuda") else largest // 2)

    def _state(self, layout: str, get: Get) -> dict[str, Any]:
        """Reads the JSON text beside a matrix."""
        state: dict[str, Any] = dict(json.loads(bytes(get(layout).flatten().tolist())))
        return state | {"shape": [int(n) for n in state["shape"]], "blocksize": int(state["blocksize"])}


INT8, FOUR_BIT = _Int8(), _FourBit()
QUANTISATIONS: dict[str, Quantisation] = {kind.name: kind for kind in (INT8, FOUR_BIT)}
"""Every kind by its name."""


def is_scale(name: str) -> bool:
    """Tells whether a stored tensor belongs to a quantised weight's scales rather than being a weight."""
    return _SCALE.search(name) is not None


def packer_of(precision: str, device: str) -> Packer:
    """Returns what packs a matrix of a layer, for a precision on a device.

    Raises:
        PrecisionError: the device cannot run it, or, when a matrix is packed, not in this shape.
    """
    from edge_tui.engine.ops import linear

    if kind := QUANTISATIONS.get(precision):
        return kind.packer(device)
    return linear.float32_on_cpu if precision == "float32" and device == "cpu" else linear.PlainLinear


def head_packer_of(precision: str, device: str) -> Packer:
    """Returns what packs the head: a third of a small model's bytes, so a CPU quantises it too, to 8 bits."""
    from edge_tui.engine.ops import linear

    if device == "cpu":
        return linear.int8_head_on_cpu if precision in QUANTISATIONS else packer_of(precision, device)
    return packer_of("", device)
