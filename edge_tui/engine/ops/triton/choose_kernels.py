"""Computes a strategy's step: penalties, the centre of surprise, the draw, the argmax."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl

from edge_tui.decoders.temperature import GREEDY_BELOW
from edge_tui.engine.ops.triton.choose_parts import (
    INDICES,
    INF,
    gumbel,
    is_last,
    keep_raw,
    peak_of,
    penalised,
)
from edge_tui.engine.ops.triton.choose_search import BIN_COUNT, edge_of, limit_of
from edge_tui.engine.ops.triton.launch import after_others

GREEDY_LIMIT = tl.constexpr(GREEDY_BELOW)


@triton.jit
def _temperatures(table, R, row, temperature, order, switch):
    """Divisors before and after the filters, whether the argmax is wanted, and whether before the filters."""
    tau = tl.load(table + temperature * R + row)
    turn = tl.where(order >= 0, tl.load(table + tl.maximum(order, 0) * R + row), 0.0)
    on = tl.where(switch >= 0, tl.load(table + tl.maximum(switch, 0) * R + row), 1.0)
    greedy = (tau < GREEDY_LIMIT) | (on <= 0.0)
    tau = tl.where(greedy, 1.0, tau)
    early = turn == 0.0
    return tl.where(early, tau, 1.0), tl.where(early, 1.0, tau), greedy, greedy & early


@triton.jit
def _leave_parts(sums, depth, valid, block, count, row):
    """Leaves a program's part of the weights and of their first moment over depth, below its maximum."""
    depth = tl.where(valid, depth, 0.0)
    weight = tl.where(valid, tl.exp(-depth), 0.0)
    tl.store(sums + 2 * row * count + block, tl.sum(weight, 0))
    tl.store(sums + (2 * row + 1) * count + block, tl.sum(weight * depth, 0))


@triton.jit(do_not_specialize=INDICES)
def prepare_kernel(
    logits,
    stride,
    raw,
    prompt,
    output,
    table,
    z,
    peaks,
    sums,
    edges,
    tallies,
    searched,
    V,
    R,
    repetition,
    presence,
    frequency,
    temperature,
    order,
    switch,
    ratio,
    slot,
    BLOCK: tl.constexpr,
    CENTRED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Penalties and the temperature, if it is its turn; each program's maximum; empty histograms.

    Where nothing is cut before a filter looks at surprise, the parts of the centre are left as well.
    """
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    source = logits + row * stride
    keep_raw(source, raw, row, ids, V)
    x = penalised(source, prompt, output, table, R, row, ids, V, repetition, presence, frequency)
    before, _, _, _ = _temperatures(table, R, row, temperature, order, switch)
    x = tl.div_rn(x, before)
    tl.store(z + row * V + ids, x, mask=ids < V)
    peak = tl.max(x, 0)
    tl.store(peaks + row * count + block, peak)
    if CENTRED:
        _leave_parts(sums, peak - x, x > -INF, block, count, row)
    if block == 0:
        least = tl.load(table + tl.maximum(ratio, 0) * R + row)
        bound = tl.where(least > 0.0, -tl.log(tl.maximum(least, 1e-37)), INF)
        tl.store(edges + slot * R + row, bound, mask=ratio >= 0)
    for histogram in range(row * count + block, searched, R * count):
        tl.store(tallies + histogram * BIN_COUNT + tl.arange(0, BIN_COUNT), tl.zeros((BIN_COUNT,), tl.int64))


@triton.jit
def centre_kernel(
    z,
    peaks,
    sums,
    edges,
    last_search,
    keys,
    weights,
    V,
    R,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    EARLIER: tl.constexpr,
    EDGE_SLOT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Adds up the parts of the centre of what earlier cuts have left."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = limit_of(edges, R, row, EARLIER, EDGE_SLOT)
    if EDGE_SLOT >= 0:
        last = edge_of(last_search, keys, weights, V, row)
        limit = tl.minimum(limit, last)
        if block == 0:
            tl.store(edges + EDGE_SLOT * R + row, last)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(z + row * V + ids, mask=ids < V, other=-INF)
    valid = (x > -INF) & (peak_of(peaks, row, count, PARTS) - x <= limit)
    _leave_parts(sums, tl.load(peaks + row * count + block) - x, valid, block, count, row)


@triton.jit
def finish_choice(
    score,
    ids,
    best,
    at,
    arrived,
    logits,
    final,
    chosen,
    output,
    V,
    row,
    alone,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Finds the best score, the first of equals; counts it, and leaves it alone in `final` if so asked.

    Returns:
        The program that comes last: the token; the others: −1.
    """
    chose = tl.full((), -1, tl.int32)
    block, count = tl.program_id(0), tl.num_programs(0)
    mine, index = tl.max(score, 0, return_indices=True)
    tl.store(best + row * count + block, mine)
    tl.store(at + row * count + block, tl.minimum(block * BLOCK + index, V - 1))
    if is_last(arrived + row, count):
        parts = tl.arange(0, PARTS)
        tops = tl.load(best + row * count + parts, mask=parts < count, other=-INF, cache_modifier=".cg")
        top, part = tl.max(tops, 0, return_indices=True)
        token = tl.load(at + row * count + part, cache_modifier=".cg")
        alone = alone | (top == -INF)
        if top == -INF:
            # Every candidate is gone: what was likeliest at the start stays.
            token = token * 0
            for start in range(0, V, BLOCK):
                spot = start + tl.arange(0, BLOCK)
                x = tl.load(logits + spot, mask=spot < V, other=-INF).to(tl.float32)
                high, index = tl.max(tl.where(x == x, x, -INF), 0, return_indices=True)
                token = tl.where(high > top, start + index, token)
                top = tl.maximum(top, high)
        if alone:
            tl.store(final + row * V + token, top)
        tl.store(chosen + row, token.to(tl.int64))
        tl.store(output + row * V + token, tl.load(output + row * V + token) + 1)
        chose = token
    return chose


@triton.jit(do_not_specialize=INDICES)
def draw_kernel(
    logits,
    stride,
    output,
    table,
    z,
    peaks,
    centres,
    edges,
    last_search,
    keys,
    weights,
    key,
    lane,
    step,
    best,
    at,
    arrived,
    chosen,
    V,
    R,
    temperature,
    order,
    switch,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    SURPRISE: tl.constexpr,
    EARLIER: tl.constexpr,
    EDGE_SLOT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Cuts at the edges, and takes the best candidate with noise, or without at temperature 0."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = limit_of(edges, R, row, EARLIER, EDGE_SLOT)
    _, after, greedy, unfiltered = _temperatures(table, R, row, temperature, order, switch)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(z + row * V + ids, mask=ids < V, other=-INF)
    peak = peak_of(peaks, row, count, PARTS)
    depth = peak - x
    valid = (x > -INF) & (depth <= tl.where(unfiltered, INF, limit))
    if EDGE_SLOT >= 0:
        last = tl.where(unfiltered, INF, edge_of(last_search, keys, weights, V, row))
        if SURPRISE:
            depth = tl.abs(depth - tl.load(centres + row))
        valid = valid & ~(depth > last)  # so put because a filter at its neutral value leaves no centre
    x = tl.where(valid, tl.div_rn(x, after), -INF)
    tl.store(z + row * V + ids, tl.where(greedy, -INF, x), mask=ids < V)
    if not greedy:
        x = x + gumbel(ids, tl.load(key + row), tl.load(lane + row), tl.load(step))
    finish_choice(
        x, ids, best, at, arrived, logits + row * stride, z, chosen, output, V, row, greedy, BLOCK, PARTS
    )


@triton.jit(do_not_specialize=INDICES)
def greedy_kernel(
    logits,
    stride,
    raw,
    prompt,
    output,
    table,
    final,
    best,
    at,
    arrived,
    chosen,
    V,
    R,
    repetition,
    presence,
    frequency,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Penalties and the argmax."""
    after_others(DEPENDENT)
    row = tl.program_id(1)
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    source = logits + row * stride
    keep_raw(source, raw, row, ids, V)
    x = penalised(source, prompt, output, table, R, row, ids, V, repetition, presence, frequency)
    tl.store(final + row * V + ids, tl.full((BLOCK,), float("-inf"), tl.float32), mask=ids < V)
    alone = tl.full((), 1, tl.int1)
    finish_choice(x, ids, best, at, arrived, source, final, chosen, output, V, row, alone, BLOCK, PARTS)
