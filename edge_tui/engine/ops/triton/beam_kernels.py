"""Computes beam search's step: normalisers, continuations, the decision, and the move of the rows."""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from edge_tui.decoders.beam import NEVER, ON
from edge_tui.engine.ops.triton.choose_parts import (
    INF,
    append_best,
    is_last,
    load_and_keep,
    penalise,
    ranks,
    take_best,
)
from edge_tui.engine.ops.triton.launch import after_others

_ON = tl.constexpr(ON)
_NEVER = tl.constexpr(NEVER)


class Continuations(NamedTuple):
    """Lists continuations that reach the bound: totals and places `row · V + id`, in any order and in order.

    Two counters stand beside them: continuations listed, and programs done.
    """

    offers: Any
    flats: Any
    totals: Any
    places: Any
    filled: Any
    arrived: Any


class Hypotheses(NamedTuple):
    """Holds the search's state, as `edge_tui.decoders.beam.Beam.init` makes it."""

    score: Any
    finished: Any
    length: Any
    max_length: Any
    improvable: Any


class Outcome(NamedTuple):
    """Holds tokens and parents of a step, a flag for the search's end, and the extras one after another."""

    chosen: Any
    parent: Any
    over: Any
    extras: Any


@triton.jit
def scan_kernel(logits, raw, peaks, weights, V, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """Leaves each program's maximum, and the weight of its candidates against it."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = load_and_keep(logits, raw, row, ids, V)
    peak = tl.max(x, 0)
    absent = x == -INF
    tl.store(peaks + row * count + block, peak)
    tl.store(weights + row * count + block, tl.sum(tl.where(absent, 0.0, tl.exp(x - peak)), 0))


@triton.jit
def extend_kernel(
    logits,
    penalties,
    score,
    peaks,
    weights,
    logp,
    tops,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Returns penalised log-probabilities, and the best total of a hypothesis of this part."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    parts = tl.arange(0, PARTS)
    valid = parts < count
    peak = tl.load(peaks + row * count + parts, mask=valid, other=-INF)
    weight = tl.load(weights + row * count + parts, mask=valid, other=0.0)
    top = tl.max(peak, 0)
    total = tl.sum(tl.where(peak == -INF, 0.0, weight * tl.exp(peak - top)), 0)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits.z + row * logits.stride + ids, mask=ids < V, other=-INF).to(tl.float32)
    x = (x - top) - tl.log(total)
    x = penalise(x, penalties, row, ids, V)
    tl.store(logp + row * V + ids, x, mask=ids < V)
    # Rows agree on what is likely, so a part's programs lie side by side: neighbours are in different groups.
    tl.store(tops + block * tl.num_programs(1) + row, tl.max(tl.load(score + row) + x, 0))


@triton.jit
def _bound(tops, programs, C, TOPS: tl.constexpr, GROUPS: tl.constexpr):
    """Returns a bound that at least `C` programs' best continuations reach; −inf where fewer have any.

    Programs fall into groups, neighbours into different ones. The best of `C` groups do, and more where some
    of the best programs share a group.
    """
    spots = tl.arange(0, TOPS)
    best = tl.load(tops + spots, mask=spots < programs, other=-INF)
    best = tl.max(tl.reshape(best, (TOPS // GROUPS, GROUPS)), 0)
    return tl.max(tl.where(ranks(best, GROUPS) == C - 1, best, -INF), 0)


@triton.jit
def _to_the(base, exponent):
    """Computes `base ** exponent` of a positive base, rounded once."""
    return tl.exp(exponent.to(tl.float64) * tl.log(base.to(tl.float64))).to(tl.float32)


@triton.jit(do_not_specialize=["C", "E"])
def decide_kernel(
    logp,
    tops,
    listed,
    merged,
    early,
    penalty,
    eos,
    hypotheses,
    outcome,
    V,
    C,
    E,
    BLOCK: tl.constexpr,
    TOPS: tl.constexpr,
    GROUPS: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Lists continuations that reach the bound; then the step of the search itself."""
    after_others(DEPENDENT)
    block, row, R = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    programs = tl.num_programs(0) * R
    score, finished, length, max_length, improvable = hypotheses
    chosen, parent, over, extras = outcome
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logp + row * V + ids, mask=ids < V, other=-INF)
    offer = tl.load(score + row) + x
    reaches = (offer >= _bound(tops, programs, C, TOPS, GROUPS)) & (offer > -INF)
    offer = tl.where(reaches, offer, -INF)
    number = tl.minimum(tl.sum(reaches.to(tl.int32), 0), C)
    offers, flats, totals, places, filled, arrived = listed
    append_best(offers, flats, filled, offer, number, row * V + block * BLOCK, BLOCK)
    if is_last(arrived, programs):
        take_best(offers, flats, filled, 0.0, totals, places, C, 0, COUNT)
        slots = tl.arange(0, COUNT)
        valid = slots < C
        total = tl.load(totals + slots, mask=valid, other=-INF)
        flat = tl.load(places + slots, mask=valid, other=0)
        token, origin = flat % V, flat // V
        ends = slots < 0
        for e in range(E):
            ends = ends | (token == tl.load(eos + e))
        steps, most = tl.load(length) + 1, tl.load(max_length)
        stop, power = tl.load(early), tl.load(penalty)
        hopeful = tl.load(improvable) != 0

        # Those of the best R that end are finished, and the best R of all finished are kept.
        rows = tl.arange(0, ROWS)
        before = tl.load(finished + rows, mask=rows < R, other=INF)
        settles = (stop == _ON) | (R == 1)
        has_room = (tl.min(before, 0) == -INF) | ((stop != _ON) & (R > 1))
        seats = tl.where(hopeful & has_room, R, 0)
        enters = (slots < seats) & tl.where(steps >= most, slots >= 0, ends)
        scored = tl.div_rn(total, tl.zeros((COUNT,), tl.float32) + _to_the(steps, power))
        tl.store(merged + rows, before, mask=rows < R)
        tl.store(merged + R + slots, tl.where(enters, scored, -INF), mask=slots < R)
        tl.debug_barrier()
        both = tl.arange(0, 2 * ROWS)
        mark = tl.load(merged + both, mask=both < 2 * R, other=-INF)
        rank = ranks(mark, 2 * ROWS)
        tl.store(finished + rank, mark, mask=rank < R)
        worst = tl.max(tl.where(rank == R - 1, mark, -INF), 0)

        # The best R that do not end live on.
        stays = (valid & ends).to(tl.int32)
        goes = valid.to(tl.int32) - stays
        live = tl.where(goes > 0, tl.cumsum(goes, 0) - 1, tl.sum(goes, 0) + tl.cumsum(stays, 0) - 1)
        lives = valid & (live < R)
        best = tl.max(tl.where(valid & (live == 0), total, -INF), 0)
        farthest = tl.where((stop == _NEVER) & (power > 0.0), most, steps)
        hopeful = hopeful & (tl.div_rn(best, _to_the(farthest, power)) > worst)
        ended = (hopeful.to(tl.int32) == 0) | ((worst > -INF) & settles) | (steps >= most)
        tl.store(chosen + live, token.to(tl.int64), mask=lives)
        tl.store(parent + live, origin.to(tl.int64), mask=lives)
        tl.store(score + live, total, mask=lives)
        tl.store(extras + live, total, mask=lives)
        ranked = slots < R
        tl.store(extras + R + slots, tl.where(enters, scored, float("nan")), mask=ranked)
        tl.store(extras + 2 * R + slots, tl.where(enters, origin, -1).to(tl.float32), mask=ranked)
        tl.store(extras + 3 * R + slots, tl.where(enters, token, -1).to(tl.float32), mask=ranked)
        tl.store(extras + 4 * R + rows, tl.zeros((ROWS,), tl.float32) + ended.to(tl.float32), mask=rows < R)
        tl.store(over + rows, tl.zeros((ROWS,), tl.int8) + ended.to(tl.int8), mask=rows < R)
        tl.store(improvable + rows, tl.zeros((ROWS,), tl.int8) + hopeful.to(tl.int8), mask=rows < R)
        tl.store(length + rows, tl.zeros((ROWS,), tl.int64) + steps, mask=rows < R)


@triton.jit
def move_kernel(
    logp, final, counts, outcome, V, R, ROWS: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr
):
    """Gives each row its parent's log-probabilities and counts, and counts its new token."""
    after_others(DEPENDENT)
    prompt, output = counts
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.arange(0, ROWS)
    origin = tl.load(outcome.parent + rows, mask=rows < R, other=0)
    token = tl.load(outcome.chosen + rows, mask=rows < R, other=0)
    inside = (rows[:, None] < R) & (ids[None, :] < V)
    source = origin[:, None] * V + ids[None, :]
    goal = rows[:, None] * V + ids[None, :]
    x = tl.load(logp + source, mask=inside, other=0.0)
    prompt_counts = tl.load(prompt + source, mask=inside, other=0)
    output_counts = tl.load(output + source, mask=inside, other=0)
    output_counts += (ids[None, :] == token[:, None]).to(tl.int32)
    tl.debug_barrier()  # every count is read before one is written over
    tl.store(final + goal, x, mask=inside)
    tl.store(prompt + goal, prompt_counts, mask=inside)
    tl.store(output + goal, output_counts, mask=inside)
