"""Holds what the kernels of fused steps share: their order, penalties, noise, and their launch."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.decoders.core.random import ROW_BITS, TOKEN_BITS
from edge_tui.engine.ops.triton.launch import chain

if TYPE_CHECKING:
    from collections.abc import Mapping

INF = tl.constexpr(float("inf"))
_ROW_BITS = tl.constexpr(ROW_BITS)
_TOKEN_BITS = tl.constexpr(TOKEN_BITS)
_MASK32 = tl.constexpr(0xFFFFFFFF)
INDICES = (
    "repetition",
    "presence",
    "frequency",
    "temperature",
    "order",
    "switch",
    "ratio",
    "slot",
    "param",
    "neutral",
)
"""Arguments whose values make no other kernel."""


@triton.jit
def is_last(counter, count):
    """Tells whether all `count` programs have come by now, so that this one sees all their stores."""
    tl.debug_barrier()
    arrived = tl.atomic_add(counter, 1, sem="acq_rel")
    last = arrived == count - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def penalise(x, prompt, output, table, R, row, ids, V, repetition, presence, frequency):
    """Penalties on float32 `x`; −inf in place of NaN."""
    inside = ids < V
    theta = tl.load(table + repetition * R + row)
    flat = tl.load(table + presence * R + row)
    slope = tl.load(table + frequency * R + row)
    if (theta != 1.0) | (flat != 0.0) | (slope != 0.0):
        output_counts = tl.load(output + row * V + ids, mask=inside, other=0)
        total_counts = output_counts + tl.load(prompt + row * V + ids, mask=inside, other=0)
        divided = tl.div_rn(x, theta)
        multiplied = x * theta
        low = tl.minimum(divided, multiplied)
        high = tl.maximum(divided, multiplied)
        x = tl.where(total_counts > 0, tl.where(theta >= 1.0, low, high), x)
        x = x - tl.where(output_counts > 0, flat, 0.0)
        x = x - slope * output_counts.to(tl.float32)
    return tl.where(x == x, x, -INF)


@triton.jit
def keep_raw(logits, raw, row, ids, V):
    """Copies logits, so that what computes the next ones need not wait until these have been recorded."""
    tl.store(raw + row * V + ids, tl.load(logits + ids, mask=ids < V).to(tl.float32), mask=ids < V)


@triton.jit
def penalised(logits, prompt, output, table, R, row, ids, V, repetition, presence, frequency):
    """Returns logits after penalties, float32; −inf beyond the vocabulary and in place of NaN."""
    x = tl.load(logits + ids, mask=ids < V, other=-INF).to(tl.float32)
    return penalise(x, prompt, output, table, R, row, ids, V, repetition, presence, frequency)


@triton.jit
def uniform(ids, key, row, step):
    """Computes `edge_tui.decoders.core.random.Rng.uniform`, bit for bit."""
    base = (((step << _ROW_BITS) + row) << _TOKEN_BITS) * key
    y = base + ids.to(tl.int64) * key
    z = y + key
    x = y * y + y
    x = ((x >> 32) & _MASK32) | (x << 32)
    x = x * x + z
    x = ((x >> 32) & _MASK32) | (x << 32)
    x = x * x + y
    x = ((x >> 32) & _MASK32) | (x << 32)
    x = x * x + z
    u = (((x >> 32) & _MASK32).to(tl.float32) + 0.5) * 2.3283064365386963e-10
    return tl.minimum(u, 0.999999940395355225)


@triton.jit
def gumbel(ids, key, row, step):
    """Computes `edge_tui.decoders.core.random.Rng.gumbel`, but for the rounding of logarithms."""
    u = uniform(ids, key, row, step)
    # −log(1 − u): a series near 0; elsewhere the logarithm of the rounded difference, and what was rounded.
    series = u * (1.0 + u * (0.5 + u * (0.33333334 + u * (0.25 + u * (0.2 + u * 0.16666667)))))
    rest = 1.0 - u
    exact = -tl.log(rest) - ((1.0 - rest) - u) / rest
    return -tl.log(tl.where(u < 0.04, series, exact))


@triton.jit
def peak_of(peaks, row, count, PARTS: tl.constexpr):
    """Returns the row's greatest logit."""
    parts = tl.arange(0, PARTS)
    return tl.max(tl.load(peaks + row * count + parts, mask=parts < count, other=-INF), 0)


def indices(place: Mapping[str, int], *names: str | None) -> tuple[int, ...]:
    """Returns the parameters' places in the table; −1 for one that is not there."""
    return tuple(-1 if name is None else place[name] for name in names)


def block_for(width: int, most: int = 1024) -> int:
    """Candidates a program: enough programs for every multiprocessor, few enough to sum up in one go."""
    share: int = triton.next_power_of_2(triton.cdiv(width, 128))
    return min(max(share, 32), most)


def launch_options(device: str, dependent: bool | None) -> dict[str, Any]:
    """Returns the options that kernels are launched with on a device."""
    # Without contraction a penalised logit is the same to the last bit as from single operations.
    options = {**chain(torch.device(device)), "enable_fp_fusion": False}
    return options if dependent is None else {**options, "DEPENDENT": dependent, "launch_pdl": dependent}
