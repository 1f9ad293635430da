"""Computes what follows a sum in the same kernel: activations, factors and caps."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

_ROOT_HALF = tl.constexpr(0.5**0.5)
_TWO_ROOT_TWO_OVER_PI = tl.constexpr(1.5957691216057308)


@triton.jit
def activated(x, NAME: tl.constexpr):
    """Applies an activation of `Features.activation`, float32."""
    if NAME == "silu":
        return x * tl.sigmoid(x)
    elif NAME == "gelu":
        return x * (0.5 + 0.5 * tl.erf(x * _ROOT_HALF))
    elif NAME == "gelu_tanh":  # ½ (1 + tanh y) is sigmoid 2y
        return x * tl.sigmoid((x + 0.044715 * x * x * x) * _TWO_ROOT_TWO_OVER_PI)
    elif NAME == "relu":
        return tl.maximum(x, 0.0)
    else:
        tl.static_assert(NAME == "relu2")
        return tl.maximum(x, 0.0) * tl.maximum(x, 0.0)


@triton.jit
def capped(x, cap):
    """Returns `cap · tanh(x / cap)`, float32."""
    return cap * (2.0 * tl.sigmoid(x * (2.0 / cap)) - 1.0)


@triton.jit
def scaled_and_capped(x, factor, cap):
    """Multiplies by a factor, then caps; None leaves either out."""
    if factor is not None:
        x *= factor
    if cap is not None:
        x = capped(x, cap)
    return x
