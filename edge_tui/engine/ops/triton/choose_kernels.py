"""Computes a strategy's step: penalties, the centre of surprise, the draw, the argmax."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from edge_tui.decoders.core.step_log import KEPT, OWN
from edge_tui.decoders.temperature import GREEDY_BELOW
from edge_tui.engine.ops.triton.choose_parts import (
    INF,
    is_last,
    load_and_keep,
    peak_of,
    penalise,
)
from edge_tui.engine.ops.triton.choose_search import BIN_COUNT, edge_of, limit_of, settle_limit
from edge_tui.engine.ops.triton.launch import after_others
from edge_tui.engine.ops.triton.noise import gumbel

GREEDY_LIMIT = tl.constexpr(GREEDY_BELOW)
_KEPT = tl.constexpr(KEPT)
_OWN = tl.constexpr(OWN)


class Temperature(NamedTuple):
    """Holds parameters `[R]`; None where a strategy lacks one.

    Attributes:
        early: The temperature before the cuts.
        late: The temperature behind them.
        order: 0 lets the early one act, 1 the late one; None lets both.
        switch: Above 0 a token is drawn; None always draws.
    """

    early: Any
    late: Any = None
    order: Any = None
    switch: Any = None


@triton.jit
def _temperatures(temperature, row):
    """Returns divisors before and behind the cuts, and flags: argmax, argmax before them, not switched on."""
    never = tl.full((), 0, tl.int1)
    before, after = tl.full((), 1.0, tl.float32), tl.full((), 1.0, tl.float32)
    first, second, off = never, never, never
    late = tl.full((), 0.0, tl.float32)
    if temperature.order is not None:
        late = tl.load(temperature.order + row)
    if temperature.early is not None:
        before = tl.load(temperature.early + row)
        if temperature.order is not None:
            before = tl.where(late == 0.0, before, 1.0)
        first = before < GREEDY_LIMIT
    if temperature.late is not None:
        after = tl.load(temperature.late + row)
        if temperature.order is not None:
            after = tl.where(late == 0.0, 1.0, after)
        second = after < GREEDY_LIMIT
    if temperature.switch is not None:
        off = tl.load(temperature.switch + row) <= 0.0
    first = first | off
    greedy = first | second
    return tl.where(first, 1.0, before), tl.where(greedy, 1.0, after), greedy, first, off


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
    TEMPERED: tl.constexpr,
    HELD: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Applies penalties and an early temperature; stores each program's maximum; empties histograms.

    Where nothing is cut before a filter looks at surprise, the parts of the centre are left as well. A later
    pass has no `raw` to fill. NaN in its logits stays, to be seen in the final ones. Where it is `HELD`, rows
    that an early temperature of 0 has decided keep what the pass before has stored.
    """
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    given = load_and_keep(logits, raw, row, ids, V)
    x = given
    if penalties is not None:
        x = penalise(x, penalties, row, ids, V)
    if raw is None:  # noqa: SIM108 - decided while it compiles
        x = tl.where(given == given, x, given)
    else:
        x = tl.where(given == given, x, -INF)
    before, _, _, decided, _ = _temperatures(temperature, row)
    if TEMPERED:
        x = tl.div_rn(x, before)
    if HELD:  # noqa: SIM102 - decided while it compiles
        if decided:
            x = tl.load(candidates.z + row * V + ids, mask=ids < V, other=-INF)
    tl.store(candidates.z + row * V + ids, x, mask=ids < V)
    x = tl.where(x == x, x, -INF)
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

    Counts the token where there is an `output`, and leaves it alone in `final` if so asked. NaN among the
    scores gives any token of the vocabulary.

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
        part = tl.minimum(part, count - 1)  # NaN has no greatest, and a lane behind the last holds no id
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
        if output is not None:
            tl.store(output + row * V + token, tl.load(output + row * V + token) + 1)
        chose = token
    return chose


@triton.jit
def draw_kernel(
    logits,
    source,
    output,
    temperature,
    candidates,
    last,
    noise,
    winner,
    removing,
    numbers,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    SURPRISE: tl.constexpr,
    EARLIER: tl.constexpr,
    EDGE_SLOT: tl.constexpr,
    ABSENT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Cuts at the edges, and takes the best candidate with noise, or without at temperature 0.

    `source` holds logits `[R, V]` that torch operations made of the candidates, but for rows that an early
    temperature of 0 has decided; None where there are none. It notes the link that removed each candidate, by
    `numbers` (the early temperature's, the late one's, those of the cuts); `ABSENT` stands for candidates
    that were gone before. NaN and +inf stay as NaN in the final logits, where the record shows them.
    """
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    z = candidates.z
    _, after, greedy, decided, off = _temperatures(temperature, row)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(z + row * V + ids, mask=ids < V, other=-INF)
    if source is not None:
        made = tl.load(source + row * V + ids, mask=ids < V, other=-INF)
        x = tl.where(decided, x, made)
    broken = ~(x < INF)
    valid = (x > -INF) & ~broken
    remover = tl.where(off, _OWN, tl.where(decided, tl.load(numbers), tl.load(numbers + 1)))
    stage = tl.zeros((BLOCK,), tl.int32) + tl.where(greedy, remover, _KEPT)
    if EARLIER > 0:
        limit = limit_of(candidates.edges, row, EARLIER, EDGE_SLOT)
        depth = peak_of(candidates.peaks, row, count, PARTS) - x
        valid = valid & (depth <= tl.where(decided, INF, limit))
        key, edge = depth, tl.full((), float("inf"), tl.float32)
        if EDGE_SLOT >= 0:
            edge = tl.where(decided, INF, edge_of(last, V, row))
            if SURPRISE:
                key = tl.abs(depth - tl.load(candidates.centres + row))
            valid = valid & ~(key > edge)  # so put because a filter at its neutral value leaves no centre
        for back in tl.static_range(EARLIER):  # from the last cut to the first, which is written over others
            slot = EARLIER - 1 - back
            if slot == EDGE_SLOT:
                beyond = key > edge
            else:
                bound = tl.load(candidates.edges + slot * tl.num_programs(1) + row)
                beyond = depth > tl.where(decided, INF, bound)
            stage = tl.where(beyond, tl.load(numbers + 2 + slot), stage)
    stage = tl.where(x > -INF, stage, ABSENT)
    tl.store(removing + row * V + ids, stage.to(tl.int8), mask=ids < V)
    x = tl.where(valid, tl.div_rn(x, after), -INF)
    left = tl.where(broken, float("nan"), tl.where(greedy, -INF, x))
    tl.store(z + row * V + ids, left, mask=ids < V)
    if not greedy:
        x = x + gumbel(ids, tl.load(noise.key + row), tl.load(noise.step))
    finish_choice(x, ids, winner, logits, z, output, V, row, greedy, BLOCK, PARTS)


@triton.jit
def greedy_kernel(
    logits,
    raw,
    penalties,
    output,
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
    finish_choice(x, ids, winner, logits, final, output, V, row, alone, BLOCK, PARTS)
