"""The kernels behind `choose`: a strategy's step as one kernel (greedy) or three to six (sampling).

Each row of the vocabulary is spread over programs of `BLOCK` candidates. What concerns a whole row (its
maximum, a histogram, the winner) passes through small tables in memory: a kernel leaves parts, and every
program of the next one puts them together for itself, which is faster than waiting for one to do it.

An edge is searched for by its bit pattern, since non-negative floats compare like their patterns: three
histograms of 11 bits each, over all candidates, then over those in the bin found, then in the bin within.
Weights are integers (a probability in units of 2⁻⁴⁰ of the best one's), so sums are exact, whatever order
atomics come in, and a run is the same run after run. A parameter at its neutral value leaves a histogram
empty, which reads as an edge at infinity, so switching a filter off and on needs no other graph.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from triton.runtime.interpreter import InterpretedFunction

from decoders.base import Step
from decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from decoders.random import ROW_BITS, TOKEN_BITS
from decoders.temperature import GREEDY_BELOW, TEMPERATURE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from decoders.base import Output, Params, State
    from decoders.random import Rng
    from edge_tui.engine.ops.choose import Plan

BINS = 2048
"""Bins of a histogram: 11 bits."""
_BINS = tl.constexpr(BINS)
_TWO = tl.constexpr(0x40000000)
_HUNDRED = tl.constexpr(0x43000000)
"""Bit patterns of 2.0 and 128.0: between them the first digit is finer, since most candidates are there."""
_MIDDLE = tl.constexpr(_TWO.value >> 22)
_UPPER = tl.constexpr(_MIDDLE.value + ((_HUNDRED.value - _TWO.value) >> 15))
_UNIT = tl.constexpr(float(1 << 40))
"""Weight of the best candidate; 2¹⁸ of them still fit into 63 bits."""
_GREEDY_BELOW = tl.constexpr(GREEDY_BELOW)
_ROW_BITS = tl.constexpr(ROW_BITS)
_TOKEN_BITS = tl.constexpr(TOKEN_BITS)
_MASK32 = tl.constexpr(0xFFFFFFFF)
_INF = tl.constexpr(float("inf"))
_INDICES = (
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
def after_others(DEPENDENT: tl.constexpr):
    """Lets the next kernel get ready, and waits until what the ones before have written can be read."""
    if DEPENDENT:
        tl.extra.cuda.gdc_launch_dependents()
        tl.extra.cuda.gdc_wait()


@triton.jit
def is_last(counter, count):
    """Whether all `count` programs have come by now, so that this one sees what each has stored."""
    tl.debug_barrier()
    arrived = tl.atomic_add(counter, 1, sem="acq_rel")
    last = arrived == count - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit
def _penalised(logits, prompt, output, table, R, row, ids, V, repetition, presence, frequency):
    """Logits after penalties, float32; −inf beyond the vocabulary and in place of NaN."""
    inside = ids < V
    x = tl.load(logits + ids, mask=inside, other=-_INF).to(tl.float32)
    theta = tl.load(table + repetition * R + row)
    flat = tl.load(table + presence * R + row)
    slope = tl.load(table + frequency * R + row)
    if (theta != 1.0) | (flat != 0.0) | (slope != 0.0):
        said = tl.load(output + row * V + ids, mask=inside, other=0)
        seen = said + tl.load(prompt + row * V + ids, mask=inside, other=0)
        divided = tl.div_rn(x, theta)
        multiplied = x * theta
        low = tl.minimum(divided, multiplied)
        high = tl.maximum(divided, multiplied)
        x = tl.where(seen > 0, tl.where(theta >= 1.0, low, high), x)
        x = x - tl.where(said > 0, flat, 0.0)
        x = x - slope * said.to(tl.float32)
    return tl.where(x == x, x, -_INF)


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
def _gumbel(ids, key, row, step):
    """`decoders.random.Rng.gumbel`, bit for bit up to the logarithms."""
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
    u = tl.minimum(u, 0.999999940395355225)
    # −log(1 − u): a series near 0; elsewhere the logarithm of the rounded difference, and what was rounded.
    series = u * (1.0 + u * (0.5 + u * (0.33333334 + u * (0.25 + u * (0.2 + u * 0.16666667)))))
    rest = 1.0 - u
    exact = -tl.log(rest) - ((1.0 - rest) - u) / rest
    return -tl.log(tl.where(u < 0.04, series, exact))


@triton.jit
def _first_digit(bits):
    """Which of 2048 uneven bins, in order, the pattern of a non-negative float falls into."""
    middle = _MIDDLE + ((bits - _TWO) >> 15)
    upper = _UPPER + ((bits - _HUNDRED) >> 22)
    return tl.where(bits < _TWO, bits >> 22, tl.where(bits < _HUNDRED, middle, upper))


@triton.jit
def _first_pattern(digit):
    """The lowest pattern in a bin; at most 2²² share one."""
    middle = _TWO + ((digit - _MIDDLE) << 15)
    upper = _HUNDRED + ((digit - _UPPER) << 22)
    return tl.where(digit < _MIDDLE, digit << 22, tl.where(digit < _UPPER, middle, upper))


@triton.jit
def _place(histogram, missing):
    """The bin in which a running sum reaches `missing`, what is missing at its start, and the whole sum."""
    bins = tl.arange(0, _BINS)
    weight = tl.load(histogram + bins)
    upto = tl.cumsum(weight, 0)
    total = tl.max(upto, 0)
    missing = tl.minimum(missing, total)
    place = tl.sum((upto < missing).to(tl.int32), 0)
    return place, missing - tl.sum(tl.where(bins < place, weight, 0), 0), total


@triton.jit
def _target(histogram, value, MASS: tl.constexpr):
    """What a parameter asks for, in units of weight."""
    if MASS:
        goal = value.to(tl.float64) * tl.sum(tl.load(histogram + tl.arange(0, _BINS)), 0).to(tl.float64)
        target = goal.to(tl.int64)
        target += (target.to(tl.float64) < goal).to(tl.int64)
    else:
        target = value.to(tl.int64)
    return target


@triton.jit
def _edge(histograms, marks, R, row):
    """A search's outcome from its third histogram; infinity where nothing was counted."""
    first = tl.load(marks + row).to(tl.int32)
    second = tl.load(marks + 2 * R + row).to(tl.int32)
    missing = tl.load(marks + 3 * R + row)
    third, _, total = _place(histograms + (2 * R + row) * _BINS, missing)
    edge = (_first_pattern(first) + (second << 11) + third).to(tl.float32, bitcast=True)
    return tl.where(total > 0, edge, _INF)


@triton.jit
def _limit(edges, R, row, EARLIER: tl.constexpr, SETTLING: tl.constexpr):
    """The least depth at which an earlier filter has cut, the one being settled aside."""
    limit = tl.full((), float("inf"), tl.float32)
    for i in tl.static_range(EARLIER):
        if i != SETTLING:
            limit = tl.minimum(limit, tl.load(edges + i * R + row))
    return limit


@triton.jit
def _key(depth, sums, row, count, SURPRISE: tl.constexpr, PARTS: tl.constexpr):
    """What candidates are put in order by. Surprise less entropy is depth less the depth expected."""
    if SURPRISE:
        parts = tl.arange(0, PARTS)
        held = parts < count
        mass = tl.sum(tl.load(sums + 2 * row * count + parts, mask=held, other=0.0), 0)
        moment = tl.sum(tl.load(sums + (2 * row + 1) * count + parts, mask=held, other=0.0), 0)
        depth = tl.abs(depth - moment / mass)
    return depth


@triton.jit
def _peak(peaks, row, count, PARTS: tl.constexpr):
    """The row's greatest logit."""
    parts = tl.arange(0, PARTS)
    return tl.max(tl.load(peaks + row * count + parts, mask=parts < count, other=-_INF), 0)


@triton.jit(do_not_specialize=_INDICES)
def _prepare(
    logits,
    stride,
    prompt,
    output,
    table,
    z,
    peaks,
    edges,
    histograms,
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
    DEPENDENT: tl.constexpr,
):
    """Penalties and the temperature, if it is its turn; each program's maximum; empty histograms."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = _penalised(
        logits + row * stride, prompt, output, table, R, row, ids, V, repetition, presence, frequency
    )
    before, _, _, _ = _temperatures(table, R, row, temperature, order, switch)
    x = tl.div_rn(x, before)
    tl.store(z + row * V + ids, x, mask=ids < V)
    tl.store(peaks + row * count + block, tl.max(x, 0))
    if block == 0:
        least = tl.load(table + tl.maximum(ratio, 0) * R + row)
        bound = tl.where(least > 0.0, -tl.log(tl.maximum(least, 1e-37)), _INF)
        tl.store(edges + slot * R + row, bound, mask=ratio >= 0)
    for histogram in range(row * count + block, searched, R * count):
        tl.store(histograms + histogram * _BINS + tl.arange(0, _BINS), tl.zeros((_BINS,), tl.int64))


@triton.jit
def _centre(
    z,
    peaks,
    sums,
    edges,
    settled,
    marks,
    V,
    R,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    EARLIER: tl.constexpr,
    SETTLING: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Each program's part of the weights of what is left, and of their first moment over depth."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = _limit(edges, R, row, EARLIER, SETTLING)
    if SETTLING >= 0:
        last = _edge(settled, marks, R, row)
        limit = tl.minimum(limit, last)
        if block == 0:
            tl.store(edges + SETTLING * R + row, last)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(z + row * V + ids, mask=ids < V, other=-_INF)
    depth = _peak(peaks, row, count, PARTS) - x
    held = (x > -_INF) & (depth <= limit)
    depth = tl.where(held, depth, 0.0)
    weight = tl.where(held, tl.exp(-depth), 0.0)
    tl.store(sums + 2 * row * count + block, tl.sum(weight, 0))
    tl.store(sums + (2 * row + 1) * count + block, tl.sum(weight * depth, 0))


@triton.jit(do_not_specialize=_INDICES)
def _digit(
    z,
    peaks,
    sums,
    edges,
    table,
    histograms,
    marks,
    settled,
    settled_marks,
    V,
    R,
    param,
    neutral,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PASS: tl.constexpr,
    MASS: tl.constexpr,
    SURPRISE: tl.constexpr,
    EARLIER: tl.constexpr,
    SETTLING: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """One histogram of a search: of the first, second or third digit of the keys still in question."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = _limit(edges, R, row, EARLIER, SETTLING)
    if SETTLING >= 0:
        last = _edge(settled, settled_marks, R, row)
        limit = tl.minimum(limit, last)
        if block == 0:
            tl.store(edges + SETTLING * R + row, last)
    value = tl.load(table + param * R + row)
    if value != neutral:
        ids = block * BLOCK + tl.arange(0, BLOCK)
        x = tl.load(z + row * V + ids, mask=ids < V, other=-_INF)
        depth = _peak(peaks, row, count, PARTS) - x
        held = (x > -_INF) & (depth <= limit)
        bits = _key(depth, sums, row, count, SURPRISE, PARTS).to(tl.int32, bitcast=True)
        digit = _first_digit(bits)
        if PASS == 1:
            target = _target(histograms + row * _BINS, value, MASS)
            first, missing, _ = _place(histograms + row * _BINS, target)
            if block == 0:
                tl.store(marks + row, first.to(tl.int64))
                tl.store(marks + R + row, missing)
            held = held & (digit == first)
            digit = (bits - _first_pattern(first)) >> 11
        if PASS == 2:
            first = tl.load(marks + row).to(tl.int32)
            second, missing, _ = _place(histograms + (R + row) * _BINS, tl.load(marks + R + row))
            if block == 0:
                tl.store(marks + 2 * R + row, second.to(tl.int64))
                tl.store(marks + 3 * R + row, missing)
            rest = bits - _first_pattern(first)
            held = held & (digit == first) & (rest >> 11 == second)
            digit = rest & 2047
        if MASS:
            weight = (tl.exp(-depth) * _UNIT).to(tl.int64)
            held = held & (weight > 0)
        else:
            weight = tl.full((BLOCK,), 1, tl.int64)
        tl.atomic_add(histograms + (PASS * R + row) * _BINS + digit, weight, mask=held, sem="relaxed")


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
    """The best of all scores, the first of equals; counts it, and leaves it alone in `final` if so asked."""
    block, count = tl.program_id(0), tl.num_programs(0)
    mine, index = tl.max(score, 0, return_indices=True)
    tl.store(best + row * count + block, mine)
    tl.store(at + row * count + block, tl.minimum(block * BLOCK + index, V - 1))
    if is_last(arrived + row, count):
        parts = tl.arange(0, PARTS)
        tops = tl.load(best + row * count + parts, mask=parts < count, other=-_INF, cache_modifier=".cg")
        top, part = tl.max(tops, 0, return_indices=True)
        token = tl.load(at + row * count + part, cache_modifier=".cg")
        alone = alone | (top == -_INF)
        if top == -_INF:
            # Every candidate is gone: what was likeliest at the start stays.
            token = token * 0
            for start in range(0, V, BLOCK):
                spot = start + tl.arange(0, BLOCK)
                x = tl.load(logits + spot, mask=spot < V, other=-_INF).to(tl.float32)
                high, index = tl.max(tl.where(x == x, x, -_INF), 0, return_indices=True)
                token = tl.where(high > top, start + index, token)
                top = tl.maximum(top, high)
        if alone:
            tl.store(final + row * V + token, top)
        tl.store(chosen + row, token.to(tl.int64))
        tl.store(output + row * V + token, tl.load(output + row * V + token) + 1)


@triton.jit(do_not_specialize=_INDICES)
def _draw(
    logits,
    stride,
    output,
    table,
    z,
    peaks,
    sums,
    edges,
    settled,
    marks,
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
    SETTLING: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Cuts at the edges, and takes the best candidate with noise, or without at temperature 0."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = _limit(edges, R, row, EARLIER, SETTLING)
    _, after, greedy, unfiltered = _temperatures(table, R, row, temperature, order, switch)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(z + row * V + ids, mask=ids < V, other=-_INF)
    depth = _peak(peaks, row, count, PARTS) - x
    held = (x > -_INF) & (depth <= tl.where(unfiltered, _INF, limit))
    if SETTLING >= 0:
        last = tl.where(unfiltered, _INF, _edge(settled, marks, R, row))
        held = held & (_key(depth, sums, row, count, SURPRISE, PARTS) <= last)
    x = tl.where(held, tl.div_rn(x, after), -_INF)
    tl.store(z + row * V + ids, tl.where(greedy, -_INF, x), mask=ids < V)
    if not greedy:
        x = x + _gumbel(ids, tl.load(key + row), tl.load(lane + row), tl.load(step))
    _finish(x, ids, best, at, arrived, logits + row * stride, z, chosen, output, V, row, greedy, BLOCK, PARTS)


@triton.jit(do_not_specialize=_INDICES)
def _greedy(
    logits,
    stride,
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
    x = _penalised(source, prompt, output, table, R, row, ids, V, repetition, presence, frequency)
    tl.store(final + row * V + ids, tl.full((BLOCK,), float("-inf"), tl.float32), mask=ids < V)
    alone = tl.full((), 1, tl.int1)
    _finish(x, ids, best, at, arrived, source, final, chosen, output, V, row, alone, BLOCK, PARTS)


INTERPRETED = isinstance(_greedy, InterpretedFunction)


class Fused:
    """A strategy's step as kernels, with the buffers that pass between them.

    Args:
        plan: What the strategy does.
        device: Where everything lies.
        width: Vocabulary `V`.
        rows: Number of rows `R`.
        block: Candidates a program; chosen by `V` if 0.
        dependent: Whether kernels get ready while the ones before them end; None where the device can.
    """

    def __init__(
        self, plan: Plan, device: str, width: int, rows: int, block: int = 0, dependent: bool | None = None
    ) -> None:
        self.plan = plan
        self.width, self.rows = width, rows
        self.block = block or block_for(width)
        blocks = triton.cdiv(width, self.block)
        self._grid = (blocks, rows)
        self._options = launch_options(device, dependent)
        # What comes before the first kernel are torch operations and copies, which are waited for in full.
        self._first = {**self._options, "launch_pdl": False} if self._options["DEPENDENT"] else self._options
        self._shape: dict[str, Any] = {"BLOCK": self.block, "PARTS": triton.next_power_of_2(blocks)}
        searches = sum(cut.edge.weight is not None for cut in plan.cuts)

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self._final = empty(rows, width)
        self._peaks = empty(rows, blocks)
        self._sums = empty(rows, 2, blocks)
        self._edges = empty(max(len(plan.cuts), 1), rows)
        self._histograms = empty(max(searches, 1), 3, rows, BINS, dtype=torch.int64)
        self._marks = empty(max(searches, 1), 4, rows, dtype=torch.int64)
        self._best = empty(rows, blocks)
        self._at = empty(rows, blocks, dtype=torch.int32)
        self._chosen = empty(rows, dtype=torch.int64)
        self._arrived = torch.zeros(rows, dtype=torch.int32, device=device)

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """As `decoders.base.Decoder.step`."""
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
                *_indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
                **self._shape,
                **self._first,
            )
        return Step(self._chosen, self._final)

    def _prepare(self, logits: Tensor, s: State, p: Params, place: Mapping[str, int]) -> None:
        ratio = next((i for i, cut in enumerate(self.plan.cuts) if cut.edge.weight is None), -1)
        _prepare[self._grid](
            logits,
            logits.stride(0),
            s["prompt_counts"],
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._edges,
            self._histograms,
            self._histograms.numel() // BINS,
            self.width,
            self.rows,
            *_indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
            *_indices(place, TEMPERATURE.name, self.plan.order, self.plan.switch),
            place[self.plan.cuts[ratio].edge.param] if ratio >= 0 else -1,
            max(ratio, 0),
            BLOCK=self.block,
            **self._first,
        )

    def _draw(self, logits: Tensor, s: State, p: Params, place: Mapping[str, int], rng: Rng) -> None:
        search, settling = -1, -1
        """The search whose outcome the next kernel is to work out, and the slot of its edge."""
        *_, last = self.plan.cuts
        for slot, cut in enumerate(self.plan.cuts):
            if cut.edge.weight is None:
                continue
            if cut.edge.key == "surprise":
                _centre[self._grid](
                    self._final,
                    self._peaks,
                    self._sums,
                    self._edges,
                    self._histograms[search],
                    self._marks[search],
                    self.width,
                    self.rows,
                    **self._shape,
                    EARLIER=slot,
                    SETTLING=settling,
                    **self._options,
                )
                settling = -1
            before, search = search, search + 1
            for digit in range(3):
                _digit[self._grid](
                    self._final,
                    self._peaks,
                    self._sums,
                    self._edges,
                    p.table,
                    self._histograms[search],
                    self._marks[search],
                    self._histograms[before],
                    self._marks[before],
                    self.width,
                    self.rows,
                    place[cut.edge.param],
                    float(cut.neutral),
                    **self._shape,
                    PASS=digit,
                    MASS=cut.edge.weight == "mass",
                    SURPRISE=cut.edge.key == "surprise",
                    EARLIER=slot,
                    SETTLING=settling if digit == 0 else -1,
                    **self._options,
                )
            settling = slot
        _draw[self._grid](
            logits,
            logits.stride(0),
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._sums,
            self._edges,
            self._histograms[search],
            self._marks[search],
            rng.key,
            rng.row,
            rng.step,
            self._best,
            self._at,
            self._arrived,
            self._chosen,
            self.width,
            self.rows,
            *_indices(place, TEMPERATURE.name, self.plan.order, self.plan.switch),
            **self._shape,
            SURPRISE=last.edge.key == "surprise",
            EARLIER=len(self.plan.cuts),
            SETTLING=settling,
            **self._options,
        )


def _indices(place: Mapping[str, int], *names: str | None) -> tuple[int, ...]:
    """Where parameters stand in the table; −1 for one that there is not."""
    return tuple(-1 if name is None else place[name] for name in names)


def block_for(width: int) -> int:
    """Candidates a program: enough programs for every multiprocessor, few enough to sum up in one go."""
    share: int = triton.next_power_of_2(triton.cdiv(width, 128))
    return min(max(share, 32), 1024)


def launch_options(device: str, dependent: bool | None) -> dict[str, Any]:
    """How kernels are launched on a device."""
    if INTERPRETED:
        return {"DEPENDENT": False}
    if dependent is None:
        dependent = torch.cuda.get_device_capability(device)[0] >= 9
    # Without contraction a penalised logit is the same to the last bit as from single operations.
    return {"DEPENDENT": dependent, "launch_pdl": dependent, "enable_fp_fusion": False, "num_warps": 4}
