"""Searches a whole vocabulary for a filter's edge, in three kernels.

The edge is what `edge_tui.decoders.base.cutoff` computes for the filters (top-k, top-p, typical) elsewhere.
Candidates are put in order by a key in nats. The first kernel adds up what those in each of 31 stretches
weigh (eighths of a nat below 2, then quarters of an octave, and all from 24 on), the second does the same for
each 1024th of the stretch that the edge lies in, and the third lists the few candidates of the part found.
Whoever wants to know the edge then searches the list by bit patterns, since non-negative floats compare like
them; what is equal stays together.

The first sums are made by comparison, not by atomics: those of a vocabulary would queue up at the few
hundred bins that nearly all candidates share. In the second, most lie in other stretches, and the others
spread; so stretches have to be narrow where a flat distribution has all its candidates.

Weights are integers (a probability in units of 2⁻⁴⁰ of the best one's), so sums are exact, whatever order
atomics come in, and a run is the same run after run. A parameter at its neutral value leaves the list empty,
which reads as an edge at infinity, so switching a filter off and on needs no other graph.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.choose_parts import INF, peak_of
from edge_tui.engine.ops.triton.launch import after_others

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.choose_plan import Cut
    from edge_tui.engine.ops.triton.choose_parts import FusedStep

BINS = 1024
"""Parts of a stretch, and entries of one histogram."""
STRETCHES = 31
BIN_COUNT = tl.constexpr(BINS)
_SIDE = tl.constexpr(32)
_ROOM = tl.constexpr(32)
"""Sums of stretches that are kept: a power of two."""
_EIGHTHS = tl.constexpr(16)
"""Stretches below 2.0."""
_NEAR = tl.constexpr((0x40000000 >> 21) - 16)
"""Difference of a quarter octave's number and its stretch: 2.0 begins the one after the eighths."""
_FAR = tl.constexpr(0x41C00000)
"""Bit pattern of 24.0, where the last stretch begins."""
_LAST = tl.constexpr(STRETCHES - 1)
_FILLED = tl.constexpr(32)
_MISSING = tl.constexpr(33)
"""Kept behind the sums of stretches: length of the list, and what those before it leave to be reached."""
_UNIT = tl.constexpr(float(1 << 40))
"""Weight of the best candidate; 2¹⁸ of them still fit into 63 bits."""
_CHUNK = tl.constexpr(128)
"""Entries of the list looked at together."""
_WAYS = tl.constexpr(16)
"""Into how many parts a search of the list cuts what is left."""


class Candidates(NamedTuple):
    """Holds the inputs of a search.

    Logits float32 `[R, V]`; each program's greatest `[R, blocks]`; for surprise, its weight and first moment
    over depth `[R, 2, blocks]`; edges of the cuts `[cuts, R]`; and for surprise the depth expected `[R]`.
    """

    z: Any
    peaks: Any
    sums: Any
    edges: Any
    centres: Any


class Found(NamedTuple):
    """Holds the results of a search: histograms, two numbers behind them, and the list of the part found."""

    tally: Any
    keys: Any
    weights: Any


@triton.jit
def stretch_of(key):
    """Returns the stretch that a key lies in."""
    eighth = (tl.minimum(key, 2.0) * (_EIGHTHS // 2)).to(tl.int32)
    quarter = (key.to(tl.int32, bitcast=True) >> 21) - _NEAR
    return tl.where(key < 2.0, eighth, tl.minimum(quarter, _LAST))


@triton.jit
def part_of(key, stretch):
    """Returns the part of its stretch that a key lies in."""
    bits = key.to(tl.int32, bitcast=True)
    near = ((tl.minimum(key, 2.0) * (_EIGHTHS // 2) - stretch.to(tl.float32)) * BIN_COUNT).to(tl.int32)
    far = (bits - _FAR) >> 20
    between = (bits >> 11) & (BIN_COUNT - 1)
    return tl.where(stretch < _EIGHTHS, near, tl.where(stretch == _LAST, far, between))


@triton.jit
def _place(weight, missing):
    """Finds the bin in which a running sum reaches `missing`, and what is missing at its start."""
    upto = tl.cumsum(weight, 0)
    missing = tl.minimum(missing, tl.max(upto, 0))
    place = tl.sum((upto < missing).to(tl.int32), 0)
    return place, missing - tl.max(tl.where(upto < missing, upto, 0), 0)


@triton.jit
def _place_in_two(parts, missing, SIDE: tl.constexpr):
    """Finds the same among `[SIDE, SIDE]` bins: first the row, then within it."""
    sides = tl.arange(0, SIDE)
    row, missing = _place(tl.sum(parts, 1), missing)
    column, missing = _place(tl.sum(tl.where(sides[:, None] == row, parts, 0), 0), missing)
    return row * SIDE + column, missing


@triton.jit
def _target(weight, value, MASS: tl.constexpr):
    """Returns a parameter's target in units of weight."""
    if MASS:
        goal = value.to(tl.float64) * tl.sum(weight, 0).to(tl.float64)
        target = goal.to(tl.int64)
        target += (target.to(tl.float64) < goal).to(tl.int64)
    else:
        target = value.to(tl.int64)
    return tl.maximum(target, 1)


@triton.jit
def edge_of(search, V, row):
    """Returns a search's outcome from its list; infinity where nothing was counted."""
    mine = search.tally + 2 * row * BIN_COUNT
    keys, weights = search.keys, search.weights
    found = tl.load(mine + _FILLED).to(tl.int32)
    missing = tl.load(mine + _MISSING)
    spots = tl.arange(0, _CHUNK)
    ways = tl.arange(0, _WAYS)
    low = tl.full((), 0x7FFFFFFF, tl.int32)
    high = tl.full((), 0, tl.int32)
    for start in range(0, found, _CHUNK):
        valid = start + spots < found
        bits = tl.load(keys + row * V + start + spots, mask=valid, other=0)
        low = tl.minimum(low, tl.min(tl.where(valid, bits, 0x7FFFFFFF), 0))
        high = tl.maximum(high, tl.max(bits, 0))
    while low < high:
        width = (high - low) // _WAYS + 1
        ends = low + width * (ways + 1) - 1
        reached = tl.zeros((_WAYS,), tl.int64)
        for start in range(0, found, _CHUNK):
            valid = start + spots < found
            bits = tl.load(keys + row * V + start + spots, mask=valid, other=0x7FFFFFFF)
            weight = tl.load(weights + row * V + start + spots, mask=valid, other=0)
            reached += tl.sum(tl.where(bits[:, None] <= ends[None, :], weight[:, None], 0), 0)
        low += width * tl.sum((reached < missing).to(tl.int32), 0)
        high = tl.minimum(high, low + width - 1)
    return tl.where(found > 0, low.to(tl.float32, bitcast=True), INF)


@triton.jit
def limit_of(edges, row, EARLIER: tl.constexpr, EDGE_SLOT: tl.constexpr):
    """Returns the least depth at which an earlier filter has cut, that of `EDGE_SLOT` aside."""
    limit = tl.full((), float("inf"), tl.float32)
    for i in tl.static_range(EARLIER):
        if i != EDGE_SLOT:
            limit = tl.minimum(limit, tl.load(edges + i * tl.num_programs(1) + row))
    return limit


@triton.jit
def settle_limit(edges, last, V, row, EARLIER: tl.constexpr, EDGE_SLOT: tl.constexpr):
    """Returns the same, and that of `EDGE_SLOT`, which is worked out from its search and written."""
    limit = limit_of(edges, row, EARLIER, EDGE_SLOT)
    if EDGE_SLOT >= 0:
        edge = edge_of(last, V, row)
        limit = tl.minimum(limit, edge)
        if tl.program_id(0) == 0:
            tl.store(edges + EDGE_SLOT * tl.num_programs(1) + row, edge)
    return limit


@triton.jit
def expected_depth(peak, peaks, sums, row, count, PARTS: tl.constexpr):
    """Returns the mean depth by weight, put together from the programs' parts."""
    parts = tl.arange(0, PARTS)
    valid = parts < count
    weight = tl.load(sums + 2 * row * count + parts, mask=valid, other=0.0)
    moment = tl.load(sums + (2 * row + 1) * count + parts, mask=valid, other=0.0)
    gap = peak - tl.load(peaks + row * count + parts, mask=valid, other=-INF)
    weighs = weight > 0.0
    gap = tl.where(weighs, gap, 0.0)
    scale = tl.where(weighs, tl.exp(-gap), 0.0)
    return tl.sum((moment + gap * weight) * scale, 0) / tl.sum(weight * scale, 0)


@triton.jit
def _list(search, key, weight, valid, V, row):
    """Appends what is held to the list, in any order."""
    number = tl.sum(valid.to(tl.int32), 0)
    if number > 0:
        filled = search.tally + 2 * row * BIN_COUNT + _FILLED
        first = tl.atomic_add(filled, number.to(tl.int64), sem="relaxed")
        spot = row * V + first.to(tl.int32) + tl.cumsum(valid.to(tl.int32), 0) - 1
        tl.store(search.keys + spot, key.to(tl.int32, bitcast=True), mask=valid)
        tl.store(search.weights + spot, weight, mask=valid)


@triton.jit
def _search(
    candidates,
    search,
    last,
    param,
    neutral,
    V,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    PASS: tl.constexpr,
    MASS: tl.constexpr,
    SURPRISE: tl.constexpr,
    EARLIER: tl.constexpr,
    EDGE_SLOT: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Runs one kernel of a search: sums of stretches, sums of parts of one, or the list of one part."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    limit = settle_limit(candidates.edges, last, V, row, EARLIER, EDGE_SLOT)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(candidates.z + row * V + ids, mask=ids < V, other=-INF)
    peak = peak_of(candidates.peaks, row, count, PARTS)
    mine = search.tally + 2 * row * BIN_COUNT
    stretches = tl.arange(0, _ROOM)
    heavy = tl.load(mine + stretches)
    sides = tl.arange(0, _SIDE)
    parts = tl.load(mine + BIN_COUNT + sides[:, None] * _SIDE + sides[None, :])
    value = tl.load(param + row)
    if value != neutral:
        depth = peak - x
        valid = (x > -INF) & (depth <= limit)
        depth = tl.where(valid, depth, 0.0)
        key = depth
        if SURPRISE:  # less entropy, it is depth less the depth expected
            if PASS == 0:
                centre = expected_depth(peak, candidates.peaks, candidates.sums, row, count, PARTS)
                tl.store(candidates.centres + row, centre, mask=block == 0)
            else:
                centre = tl.load(candidates.centres + row)
            key = depth - centre
        # −0.0 is no pattern to be searched for, and NaN is no key.
        key = tl.abs(key)
        valid = valid & (key == key)
        if MASS:
            weight = (tl.exp(-depth) * _UNIT).to(tl.int64)
            valid = valid & (weight > 0)
        else:
            weight = tl.full((BLOCK,), 1, tl.int64)
        stretch = stretch_of(key)
        if PASS == 0:
            stretch = tl.where(valid, stretch, _ROOM)
            heavy = tl.sum(tl.where(stretch[:, None] == stretches[None, :], weight[:, None], 0), 0)
            tl.atomic_add(mine + stretches, heavy, mask=heavy > 0, sem="relaxed")
        else:
            there, missing = _place(heavy, _target(heavy, value, MASS))
            valid = valid & (stretch == there)
            part = part_of(key, stretch)
            if PASS == 1:
                tl.atomic_add(mine + BIN_COUNT + part, weight, mask=valid, sem="relaxed")
            else:
                found, missing = _place_in_two(parts, missing, _SIDE)
                if block == 0:
                    tl.store(mine + _MISSING, missing)
                _list(search, key, weight, valid & (part == found), V, row)


class Searches:
    """Runs a step's searches, with their buffers.

    Args:
        step: The step.
        count: Number of searches.
        cuts: Number of cuts.
    """

    def __init__(self, step: FusedStep, count: int, cuts: int) -> None:
        empty, rows, blocks = step.empty, step.rows, step.blocks
        self._step = step
        peaks, sums = empty(rows, blocks), empty(rows, 2, blocks)
        self.candidates = Candidates(empty(rows, step.width), peaks, sums, empty(cuts, rows), empty(rows))
        self.tallies = empty(count, rows, 2, BINS, dtype=torch.int64)
        """Histograms of stretches and of parts. Whoever starts a step empties them."""
        self.histograms = 2 * count * rows
        """Number of histograms of `BINS` entries to empty."""
        self._keys = empty(rows, step.width, dtype=torch.int32)
        self._weights = empty(rows, step.width, dtype=torch.int64)

    def found(self, index: int) -> Found:
        """Returns where a search leaves what it finds; the list is the last one's."""
        return Found(self.tallies[index], self._keys, self._weights)

    def find(self, index: int, cut: Cut, param: Tensor, earlier: int, edge_slot: int) -> None:
        """Searches for one edge.

        Args:
            index: Number of the search.
            cut: The cut that is searched.
            param: float32 `[R]`, its parameter.
            earlier: Number of cuts before it.
            edge_slot: The one of them whose search has just ended, so that its edge is to be written; or −1.
        """
        step = self._step
        for number in range(3):
            _search[step.grid](
                self.candidates,
                self.found(index),
                self.found(index - 1),
                param,
                float(cut.neutral),
                step.width,
                PASS=number,
                MASS=cut.edge.weight == "mass",
                SURPRISE=cut.edge.key == "surprise",
                EARLIER=earlier,
                EDGE_SLOT=edge_slot if number == 0 else -1,
                **step.shape,
                **step.options,
            )
