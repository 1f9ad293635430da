"""Multiplies a few tokens by a matrix, with norm, gate and residual in the same kernel.

A decode step at batch 1 reads every weight once and does little else, so a layer is a handful of calls of
this shape: norm and matrix; matrix and residual; norm, two matrices and their gate. Each is one kernel: dot
products on plain cores here, one block of matrix rows a program, or on tensor cores (`project_tensor`).

At a few tokens a product moves far more bytes than it computes, so everything here serves the memory: whole
rows in wide loads, the next tile under way while this one is used, enough programs to keep all of them
waiting at once. Sums stay spread over lanes and tiles and meet once, at the end; none is split between
programs, so the same input gives the same bits.

The norm costs no pass of its own: its scale is one number a token, `s = rsqrt(mean(x²) + ε)`, and comes out
of the sum, `Σ w·(s·x·g) = s·Σ w·x·g`. The squares are summed beside the products. Where they are not
(`project_groups`), the norm is a kernel before the product.

A program fetches its first tile of weights, which depend on nobody, before it waits for the kernel before
(`launch`).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.epilogue import activated, scaled_and_capped
from edge_tui.engine.ops.triton.launch import INTERPRETED, after_others, capability, chain
from edge_tui.engine.ops.triton.project_codes import CODES, INT8, PLAIN, unpack
from edge_tui.engine.ops.triton.project_configs import Config, choose
from edge_tui.engine.ops.triton.project_groups import project_groups
from edge_tui.engine.ops.triton.project_tensor import CHUNK, project_on_tensor_cores

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.packed import PackedMatrix


@triton.jit
def _spread(x, WORDS: tl.constexpr, CODES: tl.constexpr):
    """Spreads `x` over as many tensors as an element holds weights, each with its columns."""
    if CODES == PLAIN:
        return (x,)
    else:
        even, odd = tl.split(tl.reshape(x, (WORDS, 2, 2)))
        x0, x2 = tl.split(even)
        x1, x3 = tl.split(odd)
        return x0, x1, x2, x3


@triton.jit
def _dot(weights, x, CODES: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Multiplies a tile by one token, summed over eight neighbours or one element: `[BLOCK_N, …]`."""
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
    eps,
    multiplier,
    cap,
    width,  # of `out`
    K: tl.constexpr,
    T: tl.constexpr,
    CODES: tl.constexpr,
    GATE: tl.constexpr,
    DEPENDENT: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Multiplies `BLOCK_N` rows of the matrix by `T` tokens on plain cores; the grid is blocks of rows."""
    EVICT: tl.constexpr = "evict_first" if CODES == PLAIN else ""  # no weight is read twice
    WORDS: tl.constexpr = BLOCK_K // CODES
    SPAN: tl.constexpr = K // CODES
    SUMS: tl.constexpr = BLOCK_K // 8 if CODES == PLAIN else WORDS
    r = tl.arange(0, BLOCK_N)
    if GATE != "":  # a gate row beside its up row
        at = tl.program_id(0) * (BLOCK_N // 2) + r // 2
        row = tl.minimum(at, width - 1) + (r % 2) * width
    else:
        at = tl.program_id(0) * BLOCK_N + r
        row = tl.minimum(at, width - 1)
    # Eight weights a lane, whatever their width: then each lane holds the very columns of `x` it multiplies.
    word = tl.multiple_of(tl.arange(0, WORDS), 8 // CODES)
    column = tl.arange(0, BLOCK_K)
    rows = weight + row.to(tl.int64)[:, None] * SPAN
    there = (word < SPAN)[None, :]
    tile = tl.load(rows + word[None, :], mask=there, other=0.0, eviction_policy=EVICT)
    after_others(DEPENDENT)

    sums = ()
    squares = ()
    for _ in tl.static_range(T):
        sums = sums + (tl.zeros((BLOCK_N, SUMS), tl.float32),)  # noqa: RUF005 - Triton has no unpacking
        if norm is not None:
            squares = squares + (tl.zeros((BLOCK_K // 8,), tl.float32),)  # noqa: RUF005

    for k in range(0, K, BLOCK_K):
        coming = (k // CODES + WORDS + word)[None, :]
        ahead = tl.load(rows + coming, mask=coming < SPAN, other=0.0, eviction_policy=EVICT)
        inside = k + column < K
        weights = unpack(tile, CODES)
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
            new_sums = new_sums + (sums[t] + part,)  # noqa: RUF005
        sums = new_sums
        squares = new_squares
        tile = ahead

    for t in tl.static_range(T):
        y = tl.sum(sums[t], axis=1)
        if CODES == INT8:
            y *= tl.load(scale + row) * (1.0 / 127.0)
        if norm is not None:
            y *= tl.rsqrt(tl.sum(squares[t], axis=0) / K + eps)
        if bias is not None:
            y += tl.load(bias + row).to(tl.float32)
        if GATE != "":
            gate, up = tl.split(tl.reshape(y, (BLOCK_N // 2, 2)))
            y = activated(gate, GATE) * up
            place = tl.program_id(0) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
        else:
            place = at
        y = scaled_and_capped(y, multiplier, cap)
        if residual is not None:
            y += tl.load(residual + t * width + place, mask=place < width, other=0.0).to(tl.float32)
        tl.store(out + t * width + place, y.to(out.dtype.element_ty), mask=place < width)


@triton.jit
def _embed(ids, table, factor, out, K: tl.constexpr, DEPENDENT: tl.constexpr, BLOCK_K: tl.constexpr):
    token = tl.program_id(0)
    column = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    after_others(DEPENDENT)
    values = tl.load(table + tl.load(ids + token) * K + column, mask=column < K)
    if factor is not None:
        values = (values.to(tl.float32) * factor).to(out.dtype.element_ty)
    tl.store(out + token * K + column, values, mask=column < K)


def project(
    x: Tensor,
    packed: PackedMatrix,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: str = "",
    residual: Tensor | None = None,
    factor: float = 1.0,
    cap: float = 0.0,
    config: Config | None = None,
) -> None:
    """Computes `out = f (x̂ Wᵀ + b) (+ residual)`; `x̂` is `x`, or `x` under a root mean square norm.

    Sums are float32. int8 is weight-only: activations stay in 16 bit, so LLM.int8's outliers need neither a
    threshold nor a second product. Run once before it is captured in a graph: it compiles.

    Args:
        x: `[T, K]` in the compute dtype, contiguous, `T` at most 16; in 16 bits for codes in groups.
        packed: The matrix `[N, K]`.
        out: `[T, N]`, or `[T, N / 2]` with `gate`; contiguous. May be float32 while `x` is 16 bit.
        norm: `[K]`, weight of the norm applied to `x` first.
        eps: The norm's epsilon.
        gate: Activation of a gate, or "": the first half of the matrix's rows are the gate's, the others the
            up projection's; `out = activation(gate) · up`.
        residual: `[T, N]`, added at the end; may be `out` itself.
        factor: `f`.
        cap: If not 0, `cap · tanh(f (x̂ Wᵀ + b) / cap)` takes the place of `f (x̂ Wᵀ + b)`.
        config: Overrides the table's choice.
    """
    tokens, columns = x.shape
    width = packed.rows // 2 if gate else packed.rows
    if config is None:
        config = choose(packed.kind, tokens, packed.rows, columns)
    end = None if factor == 1.0 else factor, cap or None
    if packed.form is not None:
        project_groups(x, packed, out, norm, eps, gate, residual, end, config)
        return
    # Tensor cores take both 16-bit types, and sixteen columns at once, from Ampere on.
    able = INTERPRETED or capability(x.device) >= (8, 0)
    if config.tensor and not (able and x.dtype != torch.float32 and columns % 64 == 0):
        config = choose(packed.kind, tokens, packed.rows, columns, tensor=False)
    tensor = config.tensor
    constants: dict[str, Any] = {
        "K": columns,
        "CODES": CODES[packed.kind],
        "GATE": gate,
        "BLOCK_N": config.block_n,
        "num_warps": config.warps,
        **chain(x.device),
    }
    arguments = (
        x.view(torch.int32) if tensor else x,
        packed.weight.view(-1).view(torch.int32) if tensor or packed.kind != "plain" else packed.weight,
        packed.scale,
        packed.bias,
        norm.view(torch.int32) if tensor and norm is not None else norm,
        residual,
        out,
        eps,
        *end,
        width,
    )
    grid = (triton.cdiv(width, config.block_n // (2 if gate else 1)),)
    if tensor:
        project_on_tensor_cores[grid](
            *arguments,
            tokens,
            HALVES=triton.cdiv(tokens, 8),
            CHUNKS=config.block_k // (config.warps * CHUNK[packed.kind]),
            WARPS=config.warps,
            DTYPE={torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}[x.dtype],
            num_stages=1,
            **constants,
        )
    else:
        _project[grid](*arguments, T=tokens, BLOCK_K=config.block_k, **constants)


def embed(ids: Tensor, table: Tensor, out: Tensor, factor: float = 1.0) -> None:
    """Looks up rows of the embedding.

    Args:
        ids: int64 `[T]`.
        table: `[V, K]`.
        out: `[T, K]`, contiguous.
        factor: Multiplies them.
    """
    columns = table.shape[1]
    grid = (len(ids), triton.cdiv(columns, 1024))
    # Ids may be a column of longer rows, whose neighbours in memory are no ids of this call.
    times = None if factor == 1.0 else factor
    _embed[grid](ids.contiguous(), table, times, out, K=columns, BLOCK_K=1024, **chain(table.device))
