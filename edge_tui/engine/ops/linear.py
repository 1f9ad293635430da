"""Packs matrices, plain, 8 bits wide or 4, and multiplies by them; all are called the same way.

A decode step reads every weight once, so the stored width is the speed. On a GPU both quantisations are
those of bitsandbytes (arXiv 2208.07339 and 2305.14314). Its NF4 takes several times as long as bfloat16 on a
CPU; there both are those of `ops.cpu.project`: int8 with a scale for each row, and 4 bits with a scale and a
zero point for each 32 weights, which come closer to the weights than NF4's 64 around one absmax. The head is
int8 in both, as in llama.cpp's Q8_0 and, nearly, Q4_0: in float32 it would be half of the step. A few of its
columns have more bits (`ops.cpu.fine_columns`), because each of its errors is one of a logit.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch.nn import functional as F

from edge_tui.engine.ops.cpu import fine_columns, packed_sizes
from edge_tui.engine.ops.cpu import project as project_cpu
from edge_tui.engine.ops.group_form import NF4, NF4_BLOCK
from edge_tui.engine.ops.packed import CodeFault, PackedMatrix, PrecisionError

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.code_groups import CodeGroups
    from edge_tui.engine.ops.cpu.fine_columns import FineColumns


class Linear(Protocol):
    """Computes `y = x Wᵀ + b`. Called with `[N, in]`, returns `[N, out]` in the input's dtype.

    `few` says that `N` is a step's number of tokens, which comes again: kernels for it are worth compiling.
    """

    parameters: int
    """Number of weights, biases included."""
    nbytes: int
    """Bytes they take as stored."""

    def __call__(self, x: Tensor, few: bool = False) -> Tensor: ...

    def packed(self) -> PackedMatrix | None:
        """Returns the matrix as it lies in memory, for kernels that read it directly; None if none can."""


class PlainLinear:
    """Holds a matrix in the compute dtype."""

    __slots__ = ("bias", "nbytes", "parameters", "weight")

    kind: ClassVar[str] = "plain"
    scales: ClassVar[None] = None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.parameters, self.nbytes = _count(weight, bias)

    def __call__(self, x: Tensor, few: bool = False) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def packed(self) -> PackedMatrix | None:
        """Wraps the weight itself."""
        return PackedMatrix("plain", self.weight, None, self.bias, *self.weight.shape)


class CpuLinear:
    """Holds a matrix packed for a CPU's kernels; the fused step reads the fields.

    Args:
        kind: As `project_cpu.project` takes it.
        weight: The matrix `[N, K]` before it was packed.
        bias: `[N]`, or None.
        packed: Its weight, scales and opaque weight, as `project_cpu.project` takes them.
        fine: The columns that have more bits, which it was packed with.
    """

    __slots__ = ("bias", "fine", "kind", "nbytes", "opaque", "parameters", "scales", "weight")

    def __init__(
        self,
        kind: str,
        weight: Tensor,
        bias: Tensor | None,
        packed: project_cpu.PackedOnCpu,
        fine: FineColumns | None = None,
    ) -> None:
        self.kind = kind
        self.weight, self.scales, self.opaque = packed
        self.bias, self.fine = bias, fine
        self.parameters = _count(weight, bias)[0]
        self.nbytes = _count(self.weight, self.scales, bias, *(fine or ()))[1]
        if self.opaque is not None:
            size = packed_sizes.half_bytes if kind == "half" else packed_sizes.vector_bytes
            self.nbytes += size(len(weight), len(fine.factors) if fine else weight.shape[1])

    def __call__(self, x: Tensor, few: bool = False) -> Tensor:
        if self.fine is not None:
            x = fine_columns.spread(x, *self.fine)
        return project_cpu.project(x, self.kind, self.weight, self.scales, self.bias, self.opaque)

    def packed(self) -> PackedMatrix | None:
        """Returns None: no kernel of a GPU reads it."""
        return None


class LlmInt8:
    """Multiplies by bitsandbytes' LLM.int8: activation outliers above 6 stay in 16 bit."""

    __slots__ = ("_packed", "module", "nbytes", "parameters")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        bnb = _bitsandbytes()
        rows, columns = weight.shape
        self.module = bnb.nn.Linear8bitLt(
            columns, rows, bias=bias is not None, has_fp16_weights=False, threshold=6.0, device="meta"
        ).eval()
        # Where the weights are already: `Int8Params` quantises only what comes from the host.
        codes, scale, _ = bnb.functional.int8_vectorwise_quant(weight.half())
        self.module.weight = bnb.nn.Int8Params(
            codes, requires_grad=False, has_fp16_weights=False, CB=codes, SCB=scale
        )
        if bias is not None:
            self.module.bias = type(self.module.bias)(bias.half(), requires_grad=False)
        self.parameters = _count(weight, bias)[0]
        self.nbytes = _count(codes, scale, self.module.bias)[1]
        self._packed = PackedMatrix("int8", codes, scale, bias, rows, columns)

    def __call__(self, x: Tensor, few: bool = False) -> Tensor:
        y: Tensor = self.module(x.half())  # it would cast by itself, with a warning each time
        return y.to(x.dtype)

    def packed(self) -> PackedMatrix | None:
        """Returns codes and row scales."""
        return self._packed


class Nf4:
    """Multiplies bitsandbytes' 4-bit normal floats, one absmax for every 64 weights."""

    __slots__ = ("_matmul", "_padding", "bias", "nbytes", "parameters", "state", "weight")

    levels: ClassVar[str] = "nf4"
    """The 16 numbers in use, as bitsandbytes names them."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        bnb = _bitsandbytes()
        self.parameters = _count(weight, bias)[0]
        # On a CPU with AVX-512, bitsandbytes 0.50 takes each row to begin a new block: where it does not,
        # numbers come out under another row's absmax, or under what lies beyond the last one.
        self._padding = 0 if weight.is_cuda else -weight.shape[1] % NF4_BLOCK
        weight = F.pad(weight, (0, self._padding)) if self._padding else weight
        packed, self.state = bnb.functional.quantize_4bit(weight, blocksize=64, quant_type=self.levels)
        self.weight = packed.t()
        self.bias = bias
        self._matmul: Any = bnb.matmul_4bit
        self.nbytes = _count(packed, self.state.absmax, self.state.code, bias)[1]

    def __call__(self, x: Tensor, few: bool = False) -> Tensor:
        x = F.pad(x, (0, self._padding)) if self._padding else x
        y: Tensor = self._matmul(x, self.weight, bias=self.bias, quant_state=self.state)
        return y

    def packed(self) -> PackedMatrix | None:
        """Returns None: bitsandbytes' kernels read it."""
        return None


class EmptyLinear:
    """Stands for a quantised matrix of a GPU where tensors have no memory.

    Args:
        kind: As of `PackedMatrix`.
        weight: The matrix without memory.
        bias: The bias.
    """

    __slots__ = ("_packed", "nbytes", "parameters")

    def __init__(self, kind: str, weight: Tensor, bias: Tensor | None = None) -> None:
        import torch

        rows, columns = weight.shape
        form, width = None, columns
        codes, scale = weight.new_empty(rows, columns, dtype=torch.int8), weight.new_empty(rows)
        if kind == NF4.kind:
            form, width = NF4, NF4.padded(columns)
            codes = weight.new_empty(rows, width // 8, dtype=torch.int32)
            scale = weight.new_empty(rows, width // NF4_BLOCK, 1)
        self._packed = PackedMatrix(kind, codes, scale.float(), bias, rows, columns, form=form)
        self.parameters, self.nbytes = _count(weight, bias)
        if self.packed() is not None and form is not None:
            from edge_tui.engine.ops.code_check import rehearse

            rehearse(self._packed, weight.dtype)

    def __call__(self, x: Tensor, few: bool = False) -> Tensor:
        return x.new_empty(len(x), self._packed.rows)

    def packed(self) -> PackedMatrix | None:
        """Returns tensors without memory; None for NF4 of odd widths, as `Nf4` does."""
        return None if self._packed.form is not None and self._packed.columns % NF4_BLOCK else self._packed


class Fp4(Nf4):
    """Multiplies bitsandbytes' 4-bit floats, which checkpoints may be stored in."""

    __slots__ = ()
    levels = "fp4"


def nf4_on_gpu(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Packs a matrix as NF4 for the kernels of codes in groups, where they run and take it; else as `Nf4`.

    Raises:
        PrecisionError: they do not, and there is no bitsandbytes.
    """
    from edge_tui.engine.ops.code_groups import quantise_nf4
    from edge_tui.engine.ops.packed_linear import GroupLinear

    if weight.shape[1] % NF4_BLOCK == 0:
        with suppress(CodeFault):
            return GroupLinear(quantise_nf4(weight), bias, weight.dtype)
    check_bitsandbytes("4bit")
    return Nf4(weight, bias)


def float32_on_cpu(weight: Tensor, bias: Tensor | None = None, *, rounds: bool = False) -> Linear:
    """Packs a matrix as float16 where that is read faster and loses nothing, or `rounds`; else leaves it."""
    if packed_sizes.is_worth_packing(weight.numel()) and project_cpu.can_half():
        packed = project_cpu.pack_half(weight, rounds)
        if packed is not None:
            return CpuLinear("half", weight, bias, packed)
    return PlainLinear(weight, bias)


def int8_on_cpu(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Packs a matrix in the fastest of the three kinds of int8."""
    kind = _int8_kind(weight.numel())
    return CpuLinear(kind, weight, bias, project_cpu.PACK[kind](weight))


def int8_head_on_cpu(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Packs a head in the same way, its widest columns with more bits."""
    fine = fine_columns.choose(weight)
    kind = _int8_kind(len(weight) * len(fine.factors))
    return CpuLinear(kind, weight, bias, project_cpu.PACK_INT8[kind](weight, fine), fine)


def _int8_kind(elements: int) -> str:
    if packed_sizes.is_worth_packing(elements):
        if project_cpu.can_int8_vector():
            return "int8 vector"
        if project_cpu.can_int8_dot():
            return "int8 dot"
    return "int8"


def int4_on_cpu(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """Packs a matrix as int4, or as NF4 where torch cannot.

    Raises:
        PrecisionError: it cannot, and there is no bitsandbytes.
    """
    if packed_sizes.fits_int4(*weight.shape) and project_cpu.can_int4():
        return CpuLinear("int4", weight, bias, project_cpu.pack_int4(weight))
    check_bitsandbytes("4bit")
    return Nf4(weight, bias)


def codes_on_cpu(groups: CodeGroups, bias: Tensor | None = None) -> Linear:
    """Keeps codes of four bits, and rounds the weights that others stand for to float16."""
    if packed_sizes.keeps_codes(groups.form, *groups.codes.shape) and project_cpu.can_int4():
        return CpuLinear("int4", groups.codes, bias, project_cpu.pack_codes(groups))
    return float32_on_cpu(groups.dequantise(), bias, rounds=True)


def check_bitsandbytes(precision: str) -> None:
    """Imports bitsandbytes.

    Raises:
        PrecisionError: it is missing or broken.
    """
    try:
        _bitsandbytes()
    except ImportError as error:
        raise PrecisionError(f"{precision} needs bitsandbytes, which cannot be imported: {error}.") from error


@cache
def _bitsandbytes() -> Any:
    """Imports bitsandbytes, but not torch's compiler, which takes longer than torch itself.

    Its operations for devices without kernels of its own are compiled, and torch keeps the compiler out of
    every operation that is written in Python. Either imports it, and nothing that is called here needs it.
    """
    import logging

    import torch

    # It logs, also while it is imported, to the terminal that the screen is drawn on.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    before = {name: getattr(torch, name) for name in ("compile", "_disable_dynamo") if hasattr(torch, name)}
    try:
        for name in before:
            setattr(torch, name, _undecorated)
        import bitsandbytes
    finally:
        for name, decorator in before.items():
            setattr(torch, name, decorator)
    return bitsandbytes


def _undecorated(function: Any = None, *_: Any, **__: Any) -> Any:
    """Decorates a function with nothing, called with it or with options first."""
    return _undecorated if function is None else function


def _count(*tensors: Tensor | None) -> tuple[int, int]:
    """Counts the elements and the bytes of the tensors that are there."""
    present = [t for t in tensors if t is not None]
    return sum(t.numel() for t in present), sum(t.nbytes for t in present)
