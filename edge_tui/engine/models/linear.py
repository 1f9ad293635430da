"""Matrices that know how they are stored: plain, LLM.int8 or NF4, all called the same way.

A decode step reads every weight once, so the stored width is the speed. On a GPU both quantisations are
those of bitsandbytes (arXiv 2208.07339 and 2305.14314). On a CPU, int8 keeps one scale per output row
and multiplies in bfloat16, about twice as fast as bfloat16 weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from torch.nn import functional as F

from edge_tui.engine.ops.project import NF4_BLOCK, Packed

if TYPE_CHECKING:
    from torch import Tensor


class PrecisionError(ValueError):
    """A precision that this device cannot run; the message says why and what to do."""


class Linear(Protocol):
    """`y = x Wᵀ + b`. Called with `[N, in]`, returns `[N, out]` in the input's dtype."""

    parameters: int
    """Number of weights, biases included."""
    nbytes: int
    """Bytes they take as stored."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def packed(self) -> Packed | None:
        """How it lies in memory, for kernels that read it directly; None where they cannot."""


class Plain:
    """Weights in the compute dtype."""

    __slots__ = ("bias", "nbytes", "parameters", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias
        self.parameters, self.nbytes = _count(weight, bias)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def packed(self) -> Packed | None:
        return Packed("plain", self.weight, None, self.bias, *self.weight.shape)


class RowInt8:
    """int8 with one absmax scale per output row, for CPUs; activations pass through bfloat16."""

    __slots__ = ("bias", "nbytes", "parameters", "scales", "weight")

    MANY_ROWS = 8
    """From here on widening the weights and one big product beat the packed kernel."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        import torch

        absmax = weight.float().abs().amax(1).clamp_(min=1e-12)
        self.weight = (weight.float() * (127.0 / absmax)[:, None]).round_().to(torch.int8)
        self.scales = (absmax / 127.0).to(torch.bfloat16)
        self.bias = bias
        self.parameters = _count(weight, bias)[0]
        self.nbytes = _count(self.weight, self.scales, bias)[1]

    def __call__(self, x: Tensor) -> Tensor:
        import torch

        short = x.to(torch.bfloat16)
        if len(x) < self.MANY_ROWS:
            y = torch._weight_int8pack_mm(short, self.weight, self.scales)
        else:
            y = F.linear(short, self.weight.to(torch.bfloat16)).mul_(self.scales)
        y = y.to(x.dtype)
        return y if self.bias is None else y.add_(self.bias)

    def packed(self) -> Packed | None:
        return None


class LlmInt8:
    """LLM.int8 of bitsandbytes: activation outliers above 6 stay in 16 bit."""

    __slots__ = ("_packed", "module", "nbytes", "parameters")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        bnb = _bitsandbytes()
        rows, columns = weight.shape
        module = bnb.nn.Linear8bitLt(
            columns, rows, bias=bias is not None, has_fp16_weights=False, threshold=6.0, device="meta"
        )
        # Moving Int8Params from the host to the device is what quantises it.
        module.weight = bnb.nn.Int8Params(weight.cpu().half(), requires_grad=False, has_fp16_weights=False)
        if bias is not None:
            module.bias = type(module.bias)(bias.half(), requires_grad=False)
        self.module = module.to(weight.device).eval()
        self.parameters = _count(weight, bias)[0]
        stored = self.module.weight
        self.nbytes = _count(stored, stored.SCB, self.module.bias)[1]
        # The module moves these elsewhere when it first multiplies.
        self._packed = Packed("int8", stored.data, stored.SCB, bias, rows, columns)

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x.half())  # it would cast by itself, with a warning each time
        return y.to(x.dtype)

    def packed(self) -> Packed | None:
        return self._packed


class Nf4:
    """4-bit normal floats of bitsandbytes, one absmax for every 64 weights."""

    __slots__ = ("_matmul", "bias", "nbytes", "parameters", "state", "weight")

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        bnb = _bitsandbytes()
        self.parameters = _count(weight, bias)[0]
        packed, self.state = bnb.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
        self.weight = packed.t()
        self.bias = bias
        self._matmul: Any = bnb.matmul_4bit
        self.nbytes = _count(packed, self.state.absmax, self.state.code, bias)[1]

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._matmul(x, self.weight, bias=self.bias, quant_state=self.state)
        return y

    def packed(self) -> Packed | None:
        rows, columns = self.state.shape
        if columns % NF4_BLOCK or self.state.nested:
            return None
        return Packed("nf4", self.weight.t(), self.state.absmax, self.bias, rows, columns)


def kind_of(precision: str, device: str) -> type[Plain] | type[RowInt8] | type[LlmInt8] | type[Nf4]:
    """How matrices are stored for a precision on a device.

    Raises:
        PrecisionError: the device cannot run it.
    """
    on_cuda = device.startswith("cuda")
    if precision not in ("int8", "4bit"):
        return Plain
    if precision == "int8" and device == "cpu":
        return RowInt8
    if device not in ("cpu",) and not on_cuda:
        raise PrecisionError(f"{precision} needs an NVIDIA GPU or a CPU, not {device}: choose bfloat16.")
    try:
        _bitsandbytes()
    except ImportError as error:
        raise PrecisionError(f"{precision} needs bitsandbytes, which cannot be imported: {error}.") from error
    return LlmInt8 if precision == "int8" else Nf4


def _bitsandbytes() -> Any:
    import logging

    # It logs, also while it is imported, to the terminal that the screen is drawn on.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    import bitsandbytes

    return bitsandbytes


def _count(*tensors: Tensor | None) -> tuple[int, int]:
    """Elements and bytes of the tensors that are there."""
    held = [t for t in tensors if t is not None]
    return sum(t.numel() for t in held), sum(t.numel() * t.element_size() for t in held)
