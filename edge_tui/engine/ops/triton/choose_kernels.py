"""Computes a strategy's step: penalties, the centre of surprise, the draw, the argmax."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from edge_tui.decoders.core.step_log import KEPT, OWN
from edge_tui.decoders.temperature import GREEDY_BELOW
from edge_tui.engine.ops.choose_plan import EARLY_TEMPERATURE, FIRST_CUT
from edge_tui.engine.ops.triton.choose_parts import (
    INF,
    gumbel,
    is_last,
    load_and_keep,
    peak_of,
    penalise,
)
from edge_tui.engine.ops.triton.choose_search import BIN_COUNT, edge_of, limit_of, settle_limit
from edge_tui.engine.ops.triton.launch import after_others

GREEDY_LIMIT = tl.constexpr(GREEDY_BELOW)
_KEPT = tl.constexpr(KEPT)
_OWN = tl.constexpr(OWN)
_EARLY = tl.constexpr(EARLY_TEMPERATURE)
_FIRST_CUT = tl.constexpr(FIRST_CUT)


class Temperature(NamedTuple):
    """Holds parameters `[R]`: the temperature and, where a strategy has them, its place and a draws' switch.

    Attributes:
        tau: The temperature.
        order: 0 puts it before the filters, 1 after them; None puts it before.
        switch: Above 0 a token is drawn; None always draws.
    """

    tau: Any
    order: Any
    switch: Any


@triton.jit
def _temperatures(temperature, row, LATE: tl.constexpr):
    """Returns divisors before and after the filters, two flags, and what removes all but one.

    The flags say argmax, and argmax before the filters. The last is the number of the temperature's link,
    before the filters or after them, or the strategy itself.
    """
    tau = tl.load(temperature.tau + row)
    greedy = tau < GREEDY_LIMIT
    off = tau != tau
    if temperature.switch is not None:
        off = tl.load(temperature.switch + row) <= 0.0
        greedy = greedy | off
    tau = tl.where(greedy, 1.0, tau)
    early = tau == tau
    if temperature.order is not None:
        early = tl.load(temperature.order + row) == 0.0
    remover = tl.where(off, _OWN, tl.where(early, _EARLY, LATE))
    return tl.where(early, tau, 1.0), tl.where(early, 1.0, tau), greedy, greedy & early, remover


@triton.jit
def _leave_parts(sums, depth, valid, block, count, row):
    """Leaves a program's part of the weights and of their first moment over depth, below its maximum."""
    depth = tl.where(valid, depth, 0.0)
    weight = tl.where(valid, tl.exp(-depth), 0.0)
    tl.store(sums + 2 * row * count + block, tl.sum(weight, 0))
    tl.store(sums + (2 * row + 1) * count + block, tl.sum(weight * depth, 0))


@triton.jit
def empty_histograms(tallies, histograms, row):
    """Empties this program's share of all histograms."""
    first, step = row * tl.num_programs(0) + tl.program_id(0), tl.num_programs(0) * tl.num_programs(1)
    for histogram in range(first, histograms, step):
        empty = tl.zeros((BIN_COUNT,), tl.int64)
        tl.store(tallies + histogram * BIN_COUNT + tl.arange(0, BIN_COUNT), empty)


@triton.jit
def prepare_kernel(
    logits,
    raw,
    penalties,
    temperature,
    candidates,
    ratio,
    ratio_edge,
    tallies,
    histograms,
    V,
    BLOCK: tl.constexpr,
    CENTRED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Applies penalties and an early temperature; stores each program's maximum; empties histograms.

    Where nothing is cut before a filter looks at surprise, the parts of the centre are left as well.
    """
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = penalise(load_and_keep(logits, raw, row, ids, V), penalties, row, ids, V)
    before, _, _, _, _ = _temperatures(temperature, row, 0)
    x = tl.div_rn(x, before)
    tl.store(candidates.z + row * V + ids, x, mask=ids < V)
    peak = tl.max(x, 0)
    tl.store(candidates.peaks + row * count + block, peak)
    if CENTRED:
        _leave_parts(candidates.sums, peak - x, x > -INF, block, count, row)
    if ratio is not None:  # noqa: SIM102 - decided while it compiles
        if block == 0:
            least = tl.load(ratio + row)
            bound = tl.where(least > 0.0, -tl.log(tl.maximum(least, 1e-37)), INF)
            tl.store(ratio_edge + row, bound)
    empty_histograms(tallies, histograms, row)


@triton.jit
def centre_kernel(
    candidates,
    last,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    EARLIER: tl.constexpr,
    EDGE_SLOT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Adds up the parts of the centre of what earlier cuts have left."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = settle_limit(candidates.edges, last, V, row, EARLIER, EDGE_SLOT)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(candidates.z + row * V + ids, mask=ids < V, other=-INF)
    valid = (x > -INF) & (peak_of(candidates.peaks, row, count, PARTS) - x <= limit)
    depth = tl.load(candidates.peaks + row * count + block) - x
    _leave_parts(candidates.sums, depth, valid, block, count, row)


@triton.jit
def finish_choice(
    score, ids, winner, logits, final, output, V, row, alone, BLOCK: tl.constexpr, PARTS: tl.constexpr
):
    """Finds the best score, the first of equals, and its margin.

    Counts the token, and leaves it alone in `final` if so asked.

    Returns:
        The program that comes last: the token; the others: −1.
    """
    chose = tl.full((), -1, tl.int32)
    block, count = tl.program_id(0), tl.num_programs(0)
    mine, index = tl.max(score, 0, return_indices=True)
    rest = tl.max(tl.where(tl.arange(0, BLOCK) == index, -INF, score), 0)
    tl.store(winner.best + row * count + block, mine)
    tl.store(winner.second + row * count + block, rest)
    tl.store(winner.at + row * count + block, tl.minimum(block * BLOCK + index, V - 1))
    if is_last(winner.arrived + row, count):
        parts = tl.arange(0, PARTS)
        tops_at = winner.best + row * count + parts
        tops = tl.load(tops_at, mask=parts < count, other=-INF, cache_modifier=".cg")
        top, part = tl.max(tops, 0, return_indices=True)
        token = tl.load(winner.at + row * count + part, cache_modifier=".cg")
        seconds_at = winner.second + row * count + parts
        seconds = tl.load(seconds_at, mask=parts < count, other=-INF, cache_modifier=".cg")
        rest = tl.max(tl.where(parts == part, seconds, tops), 0)
        tl.store(winner.margin + row, tl.where(rest == -INF, INF, top - rest))
        alone = alone | (top == -INF)
        if top == -INF:
            # Every candidate is gone: what was likeliest at the start stays.
            token = token * 0
            for start in range(0, V, BLOCK):
                spot = start + tl.arange(0, BLOCK)
                source = logits.z + row * logits.stride + spot
                x = tl.load(source, mask=spot < V, other=-INF).to(tl.float32)
                high, index = tl.max(tl.where(x == x, x, -INF), 0, return_indices=True)
                token = tl.where(high > top, start + index, token)
                top = tl.maximum(top, high)
        if alone:
            tl.store(final + row * V + token, top)
        tl.store(winner.chosen + row, token.to(tl.int64))
        tl.store(output + row * V + token, tl.load(output + row * V + token) + 1)
        chose = token
    return chose


@triton.jit
def draw_kernel(
    logits,
    output,
    temperature,
    candidates,
    last,
    noise,
    winner,
    removing,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    SURPRISE: tl.constexpr,
    EARLIER: tl.constexpr,
    EDGE_SLOT: tl.constexpr,
    LATE: tl.constexpr,
    ABSENT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Cuts at the edges, and takes the best candidate with noise, or without at temperature 0.

    It notes the link that removed each candidate: `LATE` is the temperature behind the filters, and `ABSENT`
    stands for candidates that were gone before.
    """
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    z = candidates.z
    limit = limit_of(candidates.edges, row, EARLIER, EDGE_SLOT)
    _, after, greedy, unfiltered, remover = _temperatures(temperature, row, LATE)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(z + row * V + ids, mask=ids < V, other=-INF)
    peak = peak_of(candidates.peaks, row, count, PARTS)
    depth = peak - x
    valid = (x > -INF) & (depth <= tl.where(unfiltered, INF, limit))
    key, edge = depth, tl.full((), float("inf"), tl.float32)
    if EDGE_SLOT >= 0:
        edge = tl.where(unfiltered, INF, edge_of(last, V, row))
        if SURPRISE:
            key = tl.abs(depth - tl.load(candidates.centres + row))
        valid = valid & ~(key > edge)  # so put because a filter at its neutral value leaves no centre
    stage = tl.zeros((BLOCK,), tl.int32) + tl.where(greedy, remover, _KEPT)
    for back in tl.static_range(EARLIER):  # from the last cut to the first, which is written over the others
        slot = EARLIER - 1 - back
        if slot == EDGE_SLOT:
            beyond = key > edge
        else:
            bound = tl.load(candidates.edges + slot * tl.num_programs(1) + row)
            beyond = depth > tl.where(unfiltered, INF, bound)
        stage = tl.where(beyond, _FIRST_CUT + slot, stage)
    stage = tl.where(x > -INF, stage, ABSENT)
    tl.store(removing + row * V + ids, stage.to(tl.int8), mask=ids < V)
    x = tl.where(valid, tl.div_rn(x, after), -INF)
    tl.store(z + row * V + ids, tl.where(greedy, -INF, x), mask=ids < V)
    if not greedy:
        x = x + gumbel(ids, tl.load(noise.key + row), tl.load(noise.step))
    finish_choice(x, ids, winner, logits, z, output, V, row, greedy, BLOCK, PARTS)


@triton.jit
def greedy_kernel(
    logits,
    raw,
    penalties,
    final,
    winner,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Applies penalties and takes the argmax."""
    after_others(DEPENDENT)
    row = tl.program_id(1)
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = penalise(load_and_keep(logits, raw, row, ids, V), penalties, row, ids, V)
    tl.store(final + row * V + ids, tl.full((BLOCK,), float("-inf"), tl.float32), mask=ids < V)
    alone = tl.full((), 1, tl.int1)
    finish_choice(x, ids, winner, logits, final, penalties.output, V, row, alone, BLOCK, PARTS)
