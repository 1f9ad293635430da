"""Runs contrastive decoding's step as five kernels, three of which idle unless the formula is `seed`.

The first reads both models' logits and leaves, for each program's part, what their normalisers are made of;
the search of `choose_search` finds the expert's ten likeliest tokens; then scores, what they are made of, and
the draw.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import triton
import triton.language as tl

from edge_tui.decoders.base import Edge, Step, names_of
from edge_tui.decoders.contrastive import LI2022, OBRIEN2023, SEED, SEED_HEAD, Contrastive
from edge_tui.decoders.temperature import TEMPERATURE
from edge_tui.engine.ops.choose_plan import Cut
from edge_tui.engine.ops.triton.choose_kernels import GREEDY_LIMIT, empty_histograms, finish_choice
from edge_tui.engine.ops.triton.choose_parts import (
    INF,
    FusedStep,
    Noise,
    last_logits,
    load_and_keep,
    peak_of,
    penalise,
    penalties_of,
)
from edge_tui.engine.ops.triton.choose_search import Searches, edge_of
from edge_tui.engine.ops.triton.launch import after_others
from edge_tui.engine.ops.triton.noise import gumbel

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


class Formula(NamedTuple):
    """Holds contrastive decoding's own parameters `[R]`."""

    formula: Any
    alpha: Any
    strength: Any
    amateur_temperature: Any
    beta: Any
    sample: Any


@triton.jit
def _weight(x, peak, tau):
    """Sums `exp((x − peak) / τ)`, removed candidates aside."""
    absent = x == -INF
    return tl.sum(tl.where(absent, 0.0, tl.exp(tl.where(absent, 0.0, x - peak) / tau)), 0)


@triton.jit
def _read(
    expert,
    amateur,
    raw,
    penalties,
    formula,
    candidates,
    parts,
    heads,
    tallies,
    histograms,
    V,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Applies penalties to the expert, and stores each program's part of both normalisers."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < V
    x = penalise(load_and_keep(expert, raw, row, ids, V), penalties, row, ids, V)
    other = tl.load(amateur.z + row * amateur.stride + ids, mask=inside, other=-INF).to(tl.float32)
    peak, top = tl.max(x, 0), tl.max(other, 0)
    tl.store(candidates.z + row * V + ids, x, mask=inside)
    tl.store(candidates.peaks + row * count + block, peak)
    mine = parts + row * _SUMS * count + block
    tl.store(mine, _weight(x, peak, 1.0))
    tl.store(mine + count, top)
    tl.store(mine + 2 * count, _weight(other, top, 1.0))
    tl.store(mine + 3 * count, _weight(other, top, tl.load(formula.amateur_temperature + row)))
    if block == 0:
        is_seed = tl.load(formula.formula + row) == _SEED
        tl.store(heads + row, tl.where(is_seed, 1.0 * _HEAD, 0.0))
    empty_histograms(tallies, histograms, row)


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


@triton.jit
def _choose(
    expert,
    amateur,
    output,
    temperature,
    formula,
    candidates,
    parts,
    heads,
    found,
    noise,
    winner,
    columns,
    extras,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Scores inside the head, and the best of them, with noise where a draw is wanted."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    R, z, peaks = tl.num_programs(1), candidates.z, candidates.peaks
    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < V
    x = tl.load(z + row * V + ids, mask=inside, other=-INF)
    other = tl.load(amateur.z + row * amateur.stride + ids, mask=inside, other=-INF).to(tl.float32)
    mine = parts + row * _SUMS * count
    kind, chill = tl.load(formula.formula + row), tl.load(formula.amateur_temperature + row)
    weigh = tl.load(formula.beta + row)
    score, main_logp, other_logp = (1.0 + weigh) * x - weigh * other, x, other
    if kind != _OBRIEN:
        main_logp = x - _normaliser(peaks + row * count, mine, count, 1.0, PARTS)
        if kind == _LI2022:
            other_logp = tl.div_rn(other, tl.zeros_like(other) + chill)
            other_logp -= _normaliser(mine + count, mine + 3 * count, count, chill, PARTS)
            score = main_logp - tl.load(formula.strength + row) * other_logp
        else:
            other_logp = other - _normaliser(mine + count, mine + 2 * count, count, 1.0, PARTS)
            score = tl.div_rn(main_logp, other_logp + 1e-9)
    bound = -tl.log(tl.load(formula.alpha + row))
    if tl.load(heads + row) > 0.0:
        bound = edge_of(found, V, row)
    depth = peak_of(peaks, row, count, PARTS) - x
    valid = (x > -INF) & (depth <= bound) & (score == score)
    score = tl.where(valid, score, -INF)
    column = columns + row * V + ids
    tl.store(column, main_logp, mask=inside)
    tl.store(column + R * V, other_logp, mask=inside)
    tl.store(column + 2 * R * V, score, mask=inside)
    drawn = tl.load(formula.sample + row) > 0.0
    tau = tl.load(temperature + row)
    alone = drawn & (tau < GREEDY_LIMIT)
    if drawn & (tau >= GREEDY_LIMIT):
        score = tl.where(valid, tl.div_rn(tl.where(valid, score, 0.0), tl.zeros_like(score) + tau), -INF)
    tl.store(z + row * V + ids, tl.where(alone, -INF, score), mask=inside)
    if drawn & (tau >= GREEDY_LIMIT):
        score = score + gumbel(ids, tl.load(noise.key + row), tl.load(noise.step))
    token = finish_choice(score, ids, winner, expert, z, output, V, row, alone, BLOCK, PARTS)
    if token >= 0:
        for i in tl.static_range(3):
            cell = columns + (i * R + row) * V + token
            tl.store(extras + i * R + row, tl.load(cell, cache_modifier=".cg"))


class FusedContrast(FusedStep):
    """Runs `edge_tui.decoders.contrastive.Contrastive.step` as kernels, with their buffers.

    Args:
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens.
    """

    def __init__(self, width: int, chosen: Tensor) -> None:
        super().__init__(width, chosen, 512)
        rows, columns = self.rows, len(Contrastive.columns)
        self._parts = self.empty(rows, _SUMS.value, self.blocks)
        self._heads = self.empty(rows)
        self._search = Searches(self, 1, 1)
        self._winner = self.winner()
        self._columns, self._extras = self.empty(columns, rows, width), self.empty(columns, rows)

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        expert, amateur = last_logits(outs["model"]), last_logits(outs["amateur"])
        formula = Formula(*(p[name] for name in Formula._fields))
        search = self._search
        _read[self.grid](
            expert,
            amateur,
            self.raw,
            penalties_of(s, p),
            formula,
            search.candidates,
            self._parts,
            self._heads,
            search.tallies,
            search.histograms,
            self.width,
            **self.first,
        )
        search.find(0, _TENTH, self._heads, 0, -1)
        _choose[self.grid](
            expert,
            amateur,
            s["output_counts"],
            p[TEMPERATURE.name],
            formula,
            search.candidates,
            self._parts,
            self._heads,
            search.found(0),
            Noise(rng.key, rng.step),
            self._winner,
            self._columns,
            self._extras,
            self.width,
            **self.shape,
            **self.options,
        )
        extras = dict(zip(names_of(Contrastive.columns), self._extras, strict=True))
        columns = dict(zip(names_of(Contrastive.columns), self._columns, strict=True))
        margin = self._winner.margin
        return Step(self.chosen, search.candidates.z, extras=extras, candidates=columns, margin=margin)
