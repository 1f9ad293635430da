"""Computes mixtures of experts for a few tokens, reading the weights of the chosen experts alone.

Three kernels follow one another: the choice from the router's logits, gate and up projection with the
activation between them, and the down projection with the weighted sum. A program of the second has one token
and one of its experts, a program of the third a token and all its experts in the order of the choice, so
nothing is added by two programs and the same input gives the same bits. Which experts are read stands in the
device's memory: the calls can be captured in a graph and replayed.

Tokens that chose the same expert read it each for themselves, one of them from the level 2 cache. What
`project` says of the norm, of wide loads and of dependent launch holds here too. `ops.experts` is the
reference; the rates, and other cuts: `python -m tests.engine.ops.speed_experts`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, assignment, possibly-undefined"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.epilogue import scaled_and_capped
from edge_tui.engine.ops.triton.launch import after_others, chain
from edge_tui.engine.ops.triton.project_configs import Config

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.experts import Experts, Routing


@triton.jit
def _choose_experts(
    logits,
    chosen,
    shares,
    EXPERTS: tl.constexpr,
    ACTIVE: tl.constexpr,
    SHARED: tl.constexpr,
    NORMALISED: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Chooses the experts of a token; the grid is the tokens.

    An expert's rank is the number of those that come before it, all counted at once: no search for the best,
    then for the next, each of which would wait for the one before. Of equal ones the first comes first, and
    logits that are no numbers come last, so that every rank is taken once.
    """
    NEVER: tl.constexpr = float("-inf")
    token = tl.program_id(0)
    e = tl.arange(0, BLOCK)
    after_others(DEPENDENT)
    row = logits + token * (EXPERTS + SHARED)
    z = tl.load(row + e, mask=e < EXPERTS, other=NEVER).to(tl.float32)
    z = tl.where(z == z, z, NEVER)
    others, mine = z[:, None], z[None, :]
    before = (others > mine) | ((others == mine) & (e[:, None] < e[None, :]))
    rank = tl.sum(before.to(tl.int32), axis=0)
    taken = rank < ACTIVE
    weight = tl.exp(z - tl.max(z, 0))
    among = tl.where(taken, weight, 0.0) if NORMALISED else weight
    share = weight / tl.sum(among, 0)
    tl.store(chosen + token * ACTIVE + rank, e, mask=taken)
    out = shares + token * (ACTIVE + SHARED)
    tl.store(out + rank, share, mask=taken)
    if SHARED:
        tl.store(out + ACTIVE, tl.sigmoid(tl.load(row + EXPERTS).to(tl.float32)))


@triton.jit
def _dot(tile, x, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr):
    """Multiplies a tile by a token, summed over eight neighbours, float32 `[BLOCK_N, BLOCK_K / 8]`."""
    products = tile.to(tl.float32) * x[None, :]
    return tl.sum(tl.reshape(products, (BLOCK_N, BLOCK_K // 8, 8)), axis=2)


@triton.jit
def _expert_gate_up(
    x,
    chosen,
    weight,
    bias,
    norm,
    out,
    eps,
    limit,
    alpha,
    width,
    K: tl.constexpr,
    ACTIVE: tl.constexpr,
    CLAMPED: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Computes `BLOCK_N` gated values of one token and expert; the grid is (tokens · active, blocks)."""
    pair = tl.program_id(0)
    at = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(at, width - 1)
    column = tl.arange(0, BLOCK_K)
    after_others(DEPENDENT)
    expert = tl.load(chosen + pair).to(tl.int64)
    token = x + (pair // ACTIVE).to(tl.int64) * K
    gates = weight + (expert * (2 * width) + row)[:, None] * K + column[None, :]
    ups = gates + width.to(tl.int64) * K
    there = (column < K)[None, :]
    gate_tile = tl.load(gates, mask=there, other=0.0, eviction_policy="evict_first")
    up_tile = tl.load(ups, mask=there, other=0.0, eviction_policy="evict_first")
    gate_sums = tl.zeros((BLOCK_N, BLOCK_K // 8), tl.float32)
    up_sums = tl.zeros((BLOCK_N, BLOCK_K // 8), tl.float32)
    squares = tl.zeros((BLOCK_K // 8,), tl.float32)
    for k in range(0, K, BLOCK_K):
        there = (k + BLOCK_K + column < K)[None, :]
        gate_ahead = tl.load(gates + k + BLOCK_K, mask=there, other=0.0, eviction_policy="evict_first")
        up_ahead = tl.load(ups + k + BLOCK_K, mask=there, other=0.0, eviction_policy="evict_first")
        value = tl.load(token + k + column, mask=k + column < K, other=0.0).to(tl.float32)
        if norm is not None:
            squares += tl.sum(tl.reshape(value * value, (BLOCK_K // 8, 8)), axis=1)
            value *= tl.load(norm + k + column, mask=k + column < K, other=0.0).to(tl.float32)
        gate_sums += _dot(gate_tile, value, BLOCK_N, BLOCK_K)
        up_sums += _dot(up_tile, value, BLOCK_N, BLOCK_K)
        gate_tile = gate_ahead
        up_tile = up_ahead
    gate = tl.sum(gate_sums, axis=1)
    up = tl.sum(up_sums, axis=1)
    if norm is not None:
        scale = tl.rsqrt(tl.sum(squares, axis=0) / K + eps)
        gate *= scale
        up *= scale
    if bias is not None:
        own = bias + expert * (2 * width) + row
        gate += tl.load(own).to(tl.float32)
        up += tl.load(own + width).to(tl.float32)
    if CLAMPED:
        gate = tl.minimum(gate, limit)
        y = gate * tl.sigmoid(gate * alpha) * (tl.minimum(tl.maximum(up, -limit), limit) + 1.0)
    else:
        y = gate * tl.sigmoid(gate) * up
    place = out + pair.to(tl.int64) * width + at
    tl.store(place, y.to(out.dtype.element_ty), mask=at < width)


@triton.jit
def _down_tile(
    weight,
    chosen,
    row,
    column,
    step,
    width,
    K: tl.constexpr,
    ACTIVE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Loads the tile of a step: experts in order, of each its columns in order; zeros behind the last."""
    at = step % STEPS * BLOCK_K + column
    expert = tl.load(chosen + tl.minimum(step // STEPS, ACTIVE - 1)).to(tl.int64)
    rows = weight + (expert * width + row)[:, None] * K
    there = (at < K) & (step < ACTIVE * STEPS)
    return tl.load(rows + at[None, :], mask=there[None, :], other=0.0, eviction_policy="evict_first")


@triton.jit
def _expert_down(
    x,
    chosen,
    shares,
    weight,
    bias,
    shared,
    residual,
    out,
    multiplier,
    width,
    K: tl.constexpr,
    ACTIVE: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Sums the experts' outputs at `BLOCK_N` places of one token; the grid is (tokens, blocks)."""
    token = tl.program_id(0)
    at = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.minimum(at, width - 1)
    column = tl.arange(0, BLOCK_K)
    after_others(DEPENDENT)
    chosen += token * ACTIVE
    shares += token * (ACTIVE + (1 if shared is not None else 0))
    wide = x + token.to(tl.int64) * (ACTIVE * K)
    tile = _down_tile(weight, chosen, row, column, 0, width, K, ACTIVE, STEPS, BLOCK_K)
    sums = tl.zeros((BLOCK_N, BLOCK_K // 8), tl.float32)
    for step in range(ACTIVE * STEPS):
        ahead = _down_tile(weight, chosen, row, column, step + 1, width, K, ACTIVE, STEPS, BLOCK_K)
        k = step % STEPS * BLOCK_K + column
        value = tl.load(wide + step // STEPS * K + k, mask=k < K, other=0.0).to(tl.float32)
        sums += _dot(tile, value * tl.load(shares + step // STEPS), BLOCK_N, BLOCK_K)
        tile = ahead
    y = tl.sum(sums, axis=1)
    if bias is not None:
        for a in range(ACTIVE):
            own = tl.load(chosen + a).to(tl.int64) * width + row
            y += tl.load(bias + own).to(tl.float32) * tl.load(shares + a)
    place = token.to(tl.int64) * width + at
    if shared is not None:
        always = tl.load(shared + place, mask=at < width, other=0.0).to(tl.float32)
        y += always * tl.load(shares + ACTIVE)
    y = scaled_and_capped(y, multiplier, None)
    if residual is not None:
        y += tl.load(residual + place, mask=at < width, other=0.0).to(tl.float32)
    tl.store(out + place, y.to(out.dtype.element_ty), mask=at < width)


def choose_experts(logits: Tensor, chosen: Tensor, shares: Tensor, experts: int, how: Routing) -> None:
    """Chooses each token's experts, as `ops.experts.choose` does.

    Args:
        logits: `[T, E]`, or `[T, E + 1]` with the gate of a shared expert; contiguous.
        chosen: int32 `[T, A]`, written.
        shares: float32 `[T, A]`, with a shared expert `[T, A + 1]`; written.
        experts: `E`.
        how: The rules.
    """
    _choose_experts[(len(logits),)](
        logits,
        chosen,
        shares,
        EXPERTS=experts,
        ACTIVE=how.active,
        SHARED=logits.shape[1] - experts,
        NORMALISED=how.normalised,
        BLOCK=triton.next_power_of_2(experts),
        num_warps=4,
        **chain(logits.device),
    )


def gate_up(
    x: Tensor,
    weights: Experts,
    chosen: Tensor,
    out: Tensor,
    how: Routing,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    cut: Config | None = None,
) -> None:
    """Computes the gated values of each token's experts.

    Args:
        x: `[T, hidden]` in the compute dtype, contiguous.
        weights: The experts.
        chosen: int32 `[T, A]`.
        out: `[T * A, W]`, contiguous.
        how: The rules.
        norm: `[hidden]`, weight of a root mean square norm that is applied to `x` first.
        eps: The norm's epsilon.
        cut: Overrides the choice by shape.
    """
    columns, width = x.shape[1], weights.down.shape[2]
    cut = cut or choose_cut(columns)
    _expert_gate_up[(chosen.numel(), triton.cdiv(width, cut.block_n))](
        x,
        chosen,
        weights.gate_up,
        weights.gate_up_bias,
        norm,
        out,
        eps,
        how.limit,
        how.alpha,
        width,
        K=columns,
        ACTIVE=how.active,
        CLAMPED=how.limit > 0,
        **_constants(cut, x),
    )


def down(
    wide: Tensor,
    weights: Experts,
    chosen: Tensor,
    shares: Tensor,
    out: Tensor,
    how: Routing,
    *,
    shared: Tensor | None = None,
    residual: Tensor | None = None,
    factor: float = 1.0,
    cut: Config | None = None,
) -> None:
    """Sums the outputs of each token's experts by their shares.

    Args:
        wide: `[T * A, W]`, of `gate_up`.
        weights: The experts.
        chosen: int32 `[T, A]`.
        shares: float32 `[T, A]`, or `[T, A + 1]` with `shared`.
        out: `[T, hidden]`, contiguous.
        how: The rules.
        shared: `[T, hidden]`, output of the expert that takes every token.
        residual: `[T, hidden]`, added at the end; may be `out` itself.
        factor: Multiplies the sum before.
        cut: Overrides the choice by shape.
    """
    columns, width = wide.shape[1], out.shape[1]
    cut = cut or choose_cut(columns)
    _expert_down[(len(out), triton.cdiv(width, cut.block_n))](
        wide,
        chosen,
        shares,
        weights.down,
        weights.down_bias,
        shared,
        residual,
        out,
        None if factor == 1.0 else factor,
        width,
        K=columns,
        ACTIVE=how.active,
        STEPS=triton.cdiv(columns, cut.block_k),
        **_constants(cut, wide),
    )


def mix(x: Tensor, logits: Tensor, weights: Experts, how: Routing, shared: Tensor | None = None) -> Tensor:
    """Computes a mixture of experts; never waits for the device.

    Args:
        x: `[T, hidden]`, normed, contiguous.
        logits: The router's, as `choose_experts` takes them.
        weights: The experts.
        how: The rules.
        shared: `[T, hidden]`, output of the expert that takes every token.

    Returns:
        `[T, hidden]`.
    """
    tokens, experts = len(x), len(weights.down)
    chosen = torch.empty(tokens, how.active, dtype=torch.int32, device=x.device)
    shares = torch.empty(tokens, how.active + logits.shape[1] - experts, device=x.device)
    wide = x.new_empty(tokens * how.active, weights.down.shape[2])
    out = torch.empty_like(x)
    choose_experts(logits, chosen, shares, experts, how)
    gate_up(x, weights, chosen, wide, how)
    down(wide, weights, chosen, shares, out, how, shared=shared)
    return out


def choose_cut(columns: int) -> Config:
    """Chooses the cut of a product with `columns` columns: some kilobytes under way in each program.

    Not measured yet.
    """
    return Config(4, max(min(triton.next_power_of_2(columns), 1024), 8), 4)


def _constants(cut: Config, x: Tensor) -> dict[str, Any]:
    return {
        "BLOCK_N": cut.block_n,
        "BLOCK_K": cut.block_k,
        "num_warps": cut.warps,
        **chain(x.device),
    }
