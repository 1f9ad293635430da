"""Runs contrastive decoding's step as five kernels, three of which idle unless the formula is `seed`.

The first reads both models' logits and leaves, for each program's part, what their normalisers are made of;
the search of `choose_search` finds the expert's ten likeliest tokens; then scores, what they are made of, and
the draw.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.decoders.base import Edge, Step
from edge_tui.decoders.contrastive import LI2022, OBRIEN2023, SEED, SEED_HEAD, Contrastive
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from edge_tui.decoders.temperature import TEMPERATURE
from edge_tui.engine.ops.choose_plan import Cut
from edge_tui.engine.ops.triton.choose_kernels import GREEDY_LIMIT, finish_choice
from edge_tui.engine.ops.triton.choose_parts import (
    INDICES,
    INF,
    block_for,
    gumbel,
    keep_raw,
    launch_options,
    peak_of,
    penalised,
)
from edge_tui.engine.ops.triton.choose_search import BIN_COUNT, Searches, edge_of
from edge_tui.engine.ops.triton.launch import after_others

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_LI2022 = tl.constexpr(LI2022)
_OBRIEN = tl.constexpr(OBRIEN2023)
_SEED = tl.constexpr(SEED)
_HEAD = tl.constexpr(SEED_HEAD)
_SUMS = tl.constexpr(4)
"""Left by each program: weight of the penalised expert; maximum, weight and weight at its own temperature of
the amateur."""
_TENTH = Cut(Edge("depth", "count", "wanted"), 0.0)
"""The search for the likeliest few; how many stands in a table of its own, 0 where no formula wants them."""
_INDEX = (*INDICES, "formula", "alpha", "strength", "cooling", "beta", "sample")


@triton.jit
def _weight(x, peak, tau):
    """Sums `exp((x − peak) / τ)`, removed candidates aside."""
    absent = x == -INF
    return tl.sum(tl.where(absent, 0.0, tl.exp(tl.where(absent, 0.0, x - peak) / tau)), 0)


@triton.jit(do_not_specialize=_INDEX)
def _read(
    expert,
    expert_stride,
    amateur,
    amateur_stride,
    raw,
    prompt,
    output,
    table,
    z,
    peaks,
    parts,
    heads,
    tally,
    searched,
    V,
    R,
    repetition,
    presence,
    frequency,
    formula,
    cooling,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Penalties on the expert, and what both normalisers are made of."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < V
    source = expert + row * expert_stride
    keep_raw(source, raw, row, ids, V)
    x = penalised(source, prompt, output, table, R, row, ids, V, repetition, presence, frequency)
    other = tl.load(amateur + row * amateur_stride + ids, mask=inside, other=-INF).to(tl.float32)
    peak, top = tl.max(x, 0), tl.max(other, 0)
    tl.store(z + row * V + ids, x, mask=inside)
    tl.store(peaks + row * count + block, peak)
    mine = parts + row * _SUMS * count + block
    tl.store(mine, _weight(x, peak, 1.0))
    tl.store(mine + count, top)
    tl.store(mine + 2 * count, _weight(other, top, 1.0))
    tl.store(mine + 3 * count, _weight(other, top, tl.load(table + cooling * R + row)))
    if block == 0:
        is_seed = tl.load(table + formula * R + row) == _SEED
        tl.store(heads + row, tl.where(is_seed, 1.0 * _HEAD, 0.0))
    for histogram in range(row * count + block, searched, R * count):
        tl.store(tally + histogram * BIN_COUNT + tl.arange(0, BIN_COUNT), tl.zeros((BIN_COUNT,), tl.int64))


@triton.jit
def _normaliser(maxima, weights, count, tau, PARTS: tl.constexpr):
    """Computes `log Σ exp(x / τ)` from its parts."""
    spots = tl.arange(0, PARTS)
    valid = spots < count
    peaks = tl.load(maxima + spots, mask=valid, other=-INF)
    weight = tl.load(weights + spots, mask=valid, other=0.0)
    top = tl.max(peaks, 0)
    absent = peaks == -INF
    scale = tl.where(absent, 0.0, tl.exp(tl.where(absent, 0.0, peaks - top) / tau))
    return top / tau + tl.log(tl.sum(weight * scale, 0))


@triton.jit(do_not_specialize=_INDEX)
def _choose(
    expert,
    expert_stride,
    amateur,
    amateur_stride,
    output,
    table,
    z,
    peaks,
    parts,
    heads,
    tally,
    keys,
    weights,
    key,
    lane,
    step,
    best,
    at,
    arrived,
    chosen,
    columns,
    extras,
    V,
    R,
    temperature,
    formula,
    alpha,
    strength,
    cooling,
    beta,
    sample,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Scores inside the head, and the best of them, with noise where a draw is wanted."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < V
    x = tl.load(z + row * V + ids, mask=inside, other=-INF)
    other = tl.load(amateur + row * amateur_stride + ids, mask=inside, other=-INF).to(tl.float32)
    mine = parts + row * _SUMS * count
    kind, chill = tl.load(table + formula * R + row), tl.load(table + cooling * R + row)
    weigh = tl.load(table + beta * R + row)
    score, main_logp, other_logp = (1.0 + weigh) * x - weigh * other, x, other
    if kind != _OBRIEN:
        main_logp = x - _normaliser(peaks + row * count, mine, count, 1.0, PARTS)
        if kind == _LI2022:
            other_logp = tl.div_rn(other, tl.zeros_like(other) + chill)
            other_logp -= _normaliser(mine + count, mine + 3 * count, count, chill, PARTS)
            score = main_logp - tl.load(table + strength * R + row) * other_logp
        else:
            other_logp = other - _normaliser(mine + count, mine + 2 * count, count, 1.0, PARTS)
            score = tl.div_rn(main_logp, other_logp + 1e-9)
    bound = -tl.log(tl.load(table + alpha * R + row))
    if tl.load(heads + row) > 0.0:
        bound = edge_of(tally, keys, weights, V, row)
    depth = peak_of(peaks, row, count, PARTS) - x
    valid = (x > -INF) & (depth <= bound) & (score == score)
    score = tl.where(valid, score, -INF)
    column = columns + row * V + ids
    tl.store(column, main_logp, mask=inside)
    tl.store(column + R * V, other_logp, mask=inside)
    tl.store(column + 2 * R * V, score, mask=inside)
    drawn = tl.load(table + sample * R + row) > 0.0
    tau = tl.load(table + temperature * R + row)
    alone = drawn & (tau < GREEDY_LIMIT)
    if drawn & (tau >= GREEDY_LIMIT):
        score = tl.where(valid, tl.div_rn(tl.where(valid, score, 0.0), tl.zeros_like(score) + tau), -INF)
    tl.store(z + row * V + ids, tl.where(alone, -INF, score), mask=inside)
    if drawn & (tau >= GREEDY_LIMIT):
        score = score + gumbel(ids, tl.load(key + row), tl.load(lane + row), tl.load(step))
    token = finish_choice(
        score,
        ids,
        best,
        at,
        arrived,
        expert + row * expert_stride,
        z,
        chosen,
        output,
        V,
        row,
        alone,
        BLOCK,
        PARTS,
    )
    if token >= 0:
        for i in tl.static_range(3):
            cell = columns + (i * R + row) * V + token
            tl.store(extras + i * R + row, tl.load(cell, cache_modifier=".cg"))


class FusedContrast:
    """Runs `edge_tui.decoders.contrastive.Contrastive.step` as kernels, with their buffers.

    Args:
        device: The device of every tensor.
        width: Vocabulary `V`.
        rows: Number of rows `R`.
        dependent: True if kernels get ready while the ones before them end; None where the device can.
        chosen: int64 `[R]`, takes the tokens; a buffer of its own if None.
    """

    def __init__(
        self,
        device: str,
        width: int,
        rows: int,
        dependent: bool | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        self.width, self.rows, self.block = width, rows, block_for(width, 512)
        self._blocks: int = triton.cdiv(width, self.block)
        self._options = launch_options(device, dependent)
        # What comes before the first kernel are torch operations and copies, which are waited for in full.
        self._first = {**self._options, "launch_pdl": False} if self._options["DEPENDENT"] else self._options

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.raw = empty(rows, width)
        """float32 `[R, V]`, a copy of the logits that the last step read."""
        self._final = empty(rows, width)
        self._peaks = empty(rows, self._blocks)
        self._parts = empty(rows, _SUMS.value, self._blocks)
        self._heads = empty(1, rows)
        self._edges = empty(1, rows)
        self._search = Searches(1, device, width, rows, self._blocks)
        self._best = empty(rows, self._blocks)
        self._at = empty(rows, self._blocks, dtype=torch.int32)
        self._chosen = empty(rows, dtype=torch.int64) if chosen is None else chosen
        self._columns = empty(len(Contrastive.columns), rows, width)
        self._extras = empty(len(Contrastive.columns), rows)
        self._arrived = torch.zeros(rows, dtype=torch.int32, device=device)

    def finish(self) -> None:
        """Does nothing: a step leaves nothing behind."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`."""
        place = {name: index for index, name in enumerate(p)}
        grid, shape = (self._blocks, self.rows), {"PARTS": triton.next_power_of_2(self._blocks)}
        pair: list[Tensor | int] = []
        for stream in ("model", "amateur"):
            logits = outs[stream].logits[:, -1]
            logits = logits if logits.stride(-1) == 1 else logits.contiguous()
            pair += (logits, logits.stride(0))
        size = (self.width, self.rows)
        _read[grid](
            *pair,
            self.raw,
            s["prompt_counts"],
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._parts,
            self._heads,
            self._search.tallies,
            self._search.histograms,
            *size,
            *(place[param.name] for param in (REPETITION, PRESENCE, FREQUENCY)),
            place["formula"],
            place["amateur_temperature"],
            BLOCK=self.block,
            **self._first,
        )
        self._search.find(
            0,
            _TENTH,
            0,
            self._final,
            self._peaks,
            self._parts,
            self._edges,
            self._heads,
            0,
            -1,
            BLOCK=self.block,
            **shape,
            **self._options,
        )
        _choose[grid](
            *pair,
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._parts,
            self._heads,
            self._search.tallies,
            self._search.keys,
            self._search.weights,
            rng.key,
            rng.row,
            rng.step,
            self._best,
            self._at,
            self._arrived,
            self._chosen,
            self._columns,
            self._extras,
            *size,
            place[TEMPERATURE.name],
            *(
                place[name]
                for name in ("formula", "alpha", "strength", "amateur_temperature", "beta", "sample")
            ),
            BLOCK=self.block,
            **shape,
            **self._options,
        )
        extras = dict(zip(Contrastive.columns, self._extras, strict=True))
        columns = dict(zip(Contrastive.columns, self._columns, strict=True))
        return Step(self._chosen, self._final, extras=extras, candidates=columns)
