"""Runs a strategy's step as one kernel (greedy), two (min-p) or five and more.

Each row of the vocabulary is spread over programs of `BLOCK` candidates. What concerns a whole row (its
maximum, an edge, the winner) passes through small tables in memory: a kernel leaves parts, and every
program of the next one puts them together for itself, which is faster than waiting for one to do it.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.decoders.base import Step
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from edge_tui.decoders.temperature import GREEDY_BELOW, TEMPERATURE
from edge_tui.engine.ops.choose_parts import (
    INDICES,
    INF,
    after_others,
    block_for,
    gumbel,
    indices,
    is_last,
    keep_raw,
    launch_options,
    peak_of,
    penalised,
)
from edge_tui.engine.ops.triton.choose_search import _BINS, Searches, edge_of, limit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng
    from edge_tui.engine.ops.choose_plan import Plan

_GREEDY_BELOW = tl.constexpr(GREEDY_BELOW)


@triton.jit
def _temperatures(table, R, row, temperature, order, switch):
    """Divisors before and after the filters, whether the argmax is wanted, and whether before the filters."""
    tau = tl.load(table + temperature * R + row)
    turn = tl.where(order >= 0, tl.load(table + tl.maximum(order, 0) * R + row), 0.0)
    on = tl.where(switch >= 0, tl.load(table + tl.maximum(switch, 0) * R + row), 1.0)
    greedy = (tau < _GREEDY_BELOW) | (on <= 0.0)
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
def _prepare(
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
        tl.store(tallies + histogram * _BINS + tl.arange(0, _BINS), tl.zeros((_BINS,), tl.int64))


@triton.jit
def _centre(
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
def _finish(
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
def _draw(
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
    _finish(x, ids, best, at, arrived, logits + row * stride, z, chosen, output, V, row, greedy, BLOCK, PARTS)


@triton.jit(do_not_specialize=INDICES)
def _greedy(
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
    _finish(x, ids, best, at, arrived, source, final, chosen, output, V, row, alone, BLOCK, PARTS)


class Fused:
    """Runs a strategy's step as kernels, with the buffers that pass between them.

    Args:
        plan: What the strategy does.
        device: Where everything lies.
        width: Vocabulary `V`.
        rows: Number of rows `R`.
        block: Candidates a program; chosen by `V` if 0.
        dependent: Whether kernels get ready while the ones before them end; None where the device can.
        chosen: int64 `[R]`, takes the tokens; a buffer of its own if None.
    """

    def __init__(
        self,
        plan: Plan,
        device: str,
        width: int,
        rows: int,
        block: int = 0,
        dependent: bool | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self.width, self.rows = width, rows
        self.block = block or block_for(width, 512 if plan.draws else 1024)
        blocks = triton.cdiv(width, self.block)
        self._grid = (blocks, rows)
        self._options = launch_options(device, dependent)
        # What comes before the first kernel are torch operations and copies, which are waited for in full.
        self._first = {**self._options, "launch_pdl": False} if self._options["DEPENDENT"] else self._options
        self._shape: dict[str, Any] = {"BLOCK": self.block, "PARTS": triton.next_power_of_2(blocks)}
        self._centred = bool(plan.cuts) and plan.cuts[0].edge.key == "surprise"
        """Whether the first kernel sees all that the centre is made of."""
        searches = sum(cut.edge.weight is not None for cut in plan.cuts)

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.raw = empty(rows, width)
        """float32 `[R, V]`, a copy of the logits that the last step read."""
        self._final = empty(rows, width)
        self._peaks = empty(rows, blocks)
        self._sums = empty(rows, 2, blocks)
        self._edges = empty(max(len(plan.cuts), 1), rows)
        self._searches = Searches(max(searches, 1), device, width, rows, blocks)
        self._best = empty(rows, blocks)
        self._at = empty(rows, blocks, dtype=torch.int32)
        self._chosen = empty(rows, dtype=torch.int64) if chosen is None else chosen
        self._arrived = torch.zeros(rows, dtype=torch.int32, device=device)

    def finish(self) -> None:
        """Does nothing: a step leaves nothing behind."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`."""
        logits = outs["model"].logits[:, -1]
        if logits.stride(-1) != 1:
            logits = logits.contiguous()
        place = {name: index for index, name in enumerate(p)}
        if self.plan.draws:
            self._prepare(logits, s, p, place)
            self._draw(logits, s, p, place, rng)
        else:
            _greedy[self._grid](
                logits,
                logits.stride(0),
                self.raw,
                s["prompt_counts"],
                s["output_counts"],
                p.table,
                self._final,
                self._best,
                self._at,
                self._arrived,
                self._chosen,
                self.width,
                self.rows,
                *indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
                **self._shape,
                **self._first,
            )
        return Step(self._chosen, self._final)

    def _prepare(self, logits: Tensor, s: State, p: Params, place: Mapping[str, int]) -> None:
        ratio = next((i for i, cut in enumerate(self.plan.cuts) if cut.edge.weight is None), -1)
        _prepare[self._grid](
            logits,
            logits.stride(0),
            self.raw,
            s["prompt_counts"],
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._sums,
            self._edges,
            self._searches.tallies,
            self._searches.histograms,
            self.width,
            self.rows,
            *indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
            *indices(place, TEMPERATURE.name, self.plan.order, self.plan.switch),
            place[self.plan.cuts[ratio].edge.param] if ratio >= 0 else -1,
            max(ratio, 0),
            BLOCK=self.block,
            CENTRED=self._centred,
            **self._first,
        )

    def _draw(self, logits: Tensor, s: State, p: Params, place: Mapping[str, int], rng: Rng) -> None:
        search, edge_slot = -1, -1
        """The search whose outcome the next kernel is to work out, and the slot of its edge."""
        *_, last = self.plan.cuts
        for slot, cut in enumerate(self.plan.cuts):
            if cut.edge.weight is None:
                continue
            if cut.edge.key == "surprise" and not self._centred:
                _centre[self._grid](
                    self._final,
                    self._peaks,
                    self._sums,
                    self._edges,
                    self._searches.tallies[search],
                    self._searches.keys,
                    self._searches.weights,
                    self.width,
                    self.rows,
                    **self._shape,
                    EARLIER=slot,
                    EDGE_SLOT=edge_slot,
                    **self._options,
                )
                edge_slot = -1
            search += 1
            self._searches.find(
                search,
                cut,
                place[cut.edge.param],
                self._final,
                self._peaks,
                self._sums,
                self._edges,
                p.table,
                slot,
                edge_slot,
                **self._shape,
                **self._options,
            )
            edge_slot = slot
        _draw[self._grid](
            logits,
            logits.stride(0),
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._searches.centres,
            self._edges,
            self._searches.tallies[search],
            self._searches.keys,
            self._searches.weights,
            rng.key,
            rng.row,
            rng.step,
            self._best,
            self._at,
            self._arrived,
            self._chosen,
            self.width,
            self.rows,
            *indices(place, TEMPERATURE.name, self.plan.order, self.plan.switch),
            **self._shape,
            SURPRISE=last.edge.key == "surprise",
            EARLIER=len(self.plan.cuts),
            EDGE_SLOT=edge_slot,
            **self._options,
        )
