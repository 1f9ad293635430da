"""Computes `project` as dot products on plain cores, one block of matrix rows a program.

At a few tokens a product moves far more bytes than it computes, so everything here serves the memory: whole
rows in wide loads, the next tile under way while this one is used, enough programs to keep all of them
waiting at once. Sums stay spread over lanes and tiles and meet once, at the end; none is split between
programs, so the same input gives the same bits.

The norm costs no pass of its own: its scale is one number a token, `s = rsqrt(mean(x²) + ε)`, and comes out
of the sum, `Σ w·(s·x·g) = s·Σ w·x·g`. The squares are summed beside the products.

On Hopper and later a kernel is launched while the one before it still runs (programmatic dependent launch):
it fetches its first tile of weights, which depend on nobody, and waits only before it touches what earlier
kernels write or read. Every kernel of such a chain has to wait, also when its own input is older: that makes
"the one before me has ended" mean "all before me have".
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait
from triton.runtime.interpreter import InterpretedFunction

from edge_tui.engine.ops.packed import NF4_BLOCK, NF4_LEVELS
from edge_tui.engine.ops.project_codes import CODES, INT8, NF4, PLAIN, lane_level, unpack
from edge_tui.engine.ops.project_configs import Config, choose
from edge_tui.engine.ops.triton.project_tensor import CHUNK, project_on_tensor_cores

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.packed import PackedMatrix


@triton.jit
def _halves(x, WORDS: tl.constexpr, CODES: tl.constexpr):
    return tl.split(tl.reshape(x, (WORDS, CODES // 2, 2)))


@triton.jit
def _spread(x, WORDS: tl.constexpr, CODES: tl.constexpr):
    """Spreads `x` over as many tensors as an element holds weights, each with its columns."""
    if CODES == PLAIN:
        return (x,)
    elif CODES == INT8:
        even, odd = _halves(x, WORDS, 4)
        x0, x2 = tl.split(even)
        x1, x3 = tl.split(odd)
        return x0, x1, x2, x3
    else:
        even, odd = _halves(x, WORDS, 8)
        even0, even2 = _halves(even, WORDS, 4)
        odd1, odd3 = _halves(odd, WORDS, 4)
        x0, x4 = tl.split(even0)
        x2, x6 = tl.split(even2)
        x1, x5 = tl.split(odd1)
        x3, x7 = tl.split(odd3)
        return x0, x1, x2, x3, x4, x5, x6, x7


@triton.jit
def _dot(weights, x, CODES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Products of a tile with one token, summed over eight neighbours or one element: `[BLOCK_N, …]`."""
    if CODES == PLAIN:
        products = weights[0] * x[0][None, :]
        return tl.sum(tl.reshape(products, (BLOCK_N, BLOCK_K // 8, 8)), axis=2)
    else:
        total = weights[0] * x[0][None, :]
        for i in tl.static_range(1, CODES):
            total += weights[i] * x[i][None, :]
        return total


@triton.jit
def _project(
    x,
    weight,
    scale,
    bias,
    norm,
    residual,
    out,
    levels,
    eps,
    width,  # of `out`
    K: tl.constexpr,
    T: tl.constexpr,
    CODES: tl.constexpr,
    GATE: tl.constexpr,
    LOOKUP: tl.constexpr,
    PDL: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    EVICT: tl.constexpr = "evict_first" if CODES == PLAIN else ""  # no weight is read twice
    WORDS: tl.constexpr = BLOCK_K // CODES
    SPAN: tl.constexpr = K // CODES
    SUMS: tl.constexpr = BLOCK_K // 8 if CODES == PLAIN else WORDS
    r = tl.arange(0, BLOCK_N)
    if GATE:  # a gate row beside its up row
        at = tl.program_id(0) * (BLOCK_N // 2) + r // 2
        row = tl.minimum(at, width - 1) + (r % 2) * width
    else:
        at = tl.program_id(0) * BLOCK_N + r
        row = tl.minimum(at, width - 1)
    # Eight weights a lane, whatever their width: then each lane holds the very columns of `x` it multiplies.
    word = tl.multiple_of(tl.arange(0, WORDS), 8 // CODES)
    # Not contiguous in truth; it makes the lanes lie along the row as they do for the codes.
    block = tl.multiple_of(tl.max_contiguous(word // 8, 2), 1)
    column = tl.arange(0, BLOCK_K)
    rows = weight + row.to(tl.int64)[:, None] * SPAN
    scales = scale
    if CODES == NF4:
        scales = scale + row.to(tl.int64)[:, None] * (K // 64)
    there = (word < SPAN)[None, :]
    tile = tl.load(rows + word[None, :], mask=there, other=0.0, eviction_policy=EVICT)
    factor = 0.0
    if CODES == NF4:
        factor = tl.load(scales + block[None, :], mask=there, other=0.0)
    level = 0.0
    if CODES == NF4 and LOOKUP != "table":
        level = lane_level(levels)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()

    sums = ()
    squares = ()
    for _ in tl.static_range(T):
        sums = sums + (tl.zeros((BLOCK_N, SUMS), tl.float32),)  # noqa: RUF005 - Triton has no unpacking
        if norm is not None:
            squares = squares + (tl.zeros((BLOCK_K // 8,), tl.float32),)  # noqa: RUF005

    for k in range(0, K, BLOCK_K):
        coming = (k // CODES + WORDS + word)[None, :]
        ahead = tl.load(rows + coming, mask=coming < SPAN, other=0.0, eviction_policy=EVICT)
        factor_ahead = 0.0
        if CODES == NF4:
            coming_block = (k // 64 + WORDS // 8 + block)[None, :]
            factor_ahead = tl.load(scales + coming_block, mask=coming < SPAN, other=0.0)
        inside = k + column < K
        weights = unpack(tile, levels, level, CODES, LOOKUP)
        if norm is not None:
            gain = tl.load(norm + k + column, mask=inside, other=0.0).to(tl.float32)
        new_sums = ()
        new_squares = ()
        for t in tl.static_range(T):
            value = tl.load(x + t * K + k + column, mask=inside, other=0.0).to(tl.float32)
            if norm is not None:
                square = tl.sum(tl.reshape(value * value, (BLOCK_K // 8, 8)), axis=1)
                new_squares = new_squares + (squares[t] + square,)  # noqa: RUF005
                value = value * gain
            part = _dot(weights, _spread(value, WORDS, CODES), CODES, BLOCK_N, BLOCK_K)
            if CODES == NF4:
                part *= factor
            new_sums = new_sums + (sums[t] + part,)  # noqa: RUF005
        sums = new_sums
        squares = new_squares
        tile = ahead
        factor = factor_ahead

    for t in tl.static_range(T):
        y = tl.sum(sums[t], axis=1)
        if CODES == INT8:
            y *= tl.load(scale + row) * (1.0 / 127.0)
        if norm is not None:
            y *= tl.rsqrt(tl.sum(squares[t], axis=0) / K + eps)
        if bias is not None:
            y += tl.load(bias + row).to(tl.float32)
        if GATE:
            gate, up = tl.split(tl.reshape(y, (BLOCK_N // 2, 2)))
            y = gate * tl.sigmoid(gate) * up
            place = tl.program_id(0) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
        else:
            place = at
        if residual is not None:
            y += tl.load(residual + t * width + place, mask=place < width, other=0.0).to(tl.float32)
        tl.store(out + t * width + place, y.to(out.dtype.element_ty), mask=place < width)


@triton.jit
def _embed(ids, table, out, K: tl.constexpr, PDL: tl.constexpr, BLOCK_K: tl.constexpr):
    token = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    if PDL:
        gdc_launch_dependents()
        gdc_wait()
    values = tl.load(table + tl.load(ids + token) * K + column, mask=column < K)
    tl.store(out + token * K + column, values, mask=column < K)


INTERPRETED = isinstance(_embed, InterpretedFunction)
dependent_launch = True
"""True if chains of kernels overlap on GPUs that can; read at each launch."""


@cache
def _can_overlap(device: torch.device) -> bool:
    return not INTERPRETED and torch.cuda.get_device_capability(device) >= (9, 0)


@cache
def _has_tensor_cores(device: torch.device) -> bool:
    """Tells whether tensor cores take both 16-bit types, and sixteen columns at once."""
    return INTERPRETED or torch.cuda.get_device_capability(device) >= (8, 0)


@cache
def levels(device: torch.device) -> Tensor:
    """Returns the 16 levels of NF4, float32; the first call on a device waits for it."""
    return torch.tensor(NF4_LEVELS, device=device)


def project(
    x: Tensor,
    packed: PackedMatrix,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: bool = False,
    residual: Tensor | None = None,
    config: Config | None = None,
) -> None:
    """Launches `project.project` as one kernel; `config` overrides the table's choice.

    Run once before it is captured in a graph: it compiles.
    """
    tokens, columns = x.shape
    width = packed.rows // 2 if gate else packed.rows
    if config is None:
        config = choose(packed.kind, tokens, packed.rows, columns)
    if config.tensor and not (
        x.dtype != torch.float32 and columns % NF4_BLOCK == 0 and _has_tensor_cores(x.device)
    ):
        config = choose(packed.kind, tokens, packed.rows, columns, tensor=False)
    overlap = dependent_launch and _can_overlap(x.device)
    constants: dict[str, Any] = {
        "K": columns,
        "CODES": CODES[packed.kind],
        "GATE": gate,
        "LOOKUP": "table" if INTERPRETED else config.lookup,
        "PDL": overlap,
        "BLOCK_N": config.block_n,
        "num_warps": config.warps,
    }
    if overlap:
        constants["launch_pdl"] = True
    arguments: tuple[Any, ...] = (eps, width)
    if config.tensor:
        kernel = project_on_tensor_cores
        arguments = (eps, width, tokens)
        constants["HALVES"] = triton.cdiv(tokens, 8)
        constants["CHUNKS"] = config.block_k // (config.warps * CHUNK[packed.kind])
        constants["WARPS"] = config.warps
        constants["num_stages"] = 1
        constants["DTYPE"] = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[x.dtype]
        constants["INTERPRETED"] = INTERPRETED
    else:
        kernel = _project
        constants["T"] = tokens
        constants["BLOCK_K"] = config.block_k
    words = packed.kind != "plain" or config.tensor
    kernel[(triton.cdiv(width, config.block_n // (2 if gate else 1)),)](
        x.view(torch.int32) if config.tensor else x,
        packed.weight.view(-1).view(torch.int32) if words else packed.weight,
        packed.scale,
        packed.bias,
        norm.view(torch.int32) if config.tensor and norm is not None else norm,
        residual,
        out,
        levels(x.device) if packed.kind == "nf4" else None,
        *arguments,
        **constants,
    )


def embed(ids: Tensor, table: Tensor, out: Tensor) -> None:
    """Launches `project.embed` as a kernel."""
    columns = table.shape[1]
    overlap = dependent_launch and _can_overlap(table.device)
    launch: dict[str, Any] = {"launch_pdl": True} if overlap else {}
    grid = (len(ids), triton.cdiv(columns, 1024))
    # Ids may be a column of longer rows, whose neighbours in memory are no ids of this call.
    _embed[grid](ids.contiguous(), table, out, K=columns, PDL=overlap, BLOCK_K=1024, **launch)
