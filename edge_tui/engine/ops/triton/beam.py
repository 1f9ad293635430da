"""Runs beam search's step as four kernels.

The first leaves what each row's normaliser is made of. The second makes penalised log-probabilities, and
leaves each program's best continuation. From these every program of the third works out a bound that no less
of them reach than are wanted, and lists what else does; the one that comes last puts the few in order and
decides which hypotheses finish and which live on. The fourth moves rows behind their new parents; a forward
need not wait for it.
Equal continuations are ordered by row and id.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from edge_tui.decoders.base import Step
from edge_tui.decoders.beam import EARLY_STOPPING, LENGTH_PENALTY, NEVER, ON, Beam
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from edge_tui.engine.ops.choose_parts import (
    INF,
    after_others,
    block_for,
    indices,
    is_last,
    launch_options,
    penalise,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_ON = tl.constexpr(ON)
_NEVER = tl.constexpr(NEVER)
_CHUNK = tl.constexpr(64)
"""Continuations compared with each other at a time; seldom more reach the bound."""
_MOST = 128
"""Most continuations that are put in order; with more the reference is no slower."""
_INDEX = ("repetition", "presence", "frequency", "early", "penalty", "R", "C", "E")


@triton.jit
def _scan(logits, stride, raw, peaks, weights, V, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """Leaves each program's maximum, and the weight of its candidates against it."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + row * stride + ids, mask=ids < V, other=-INF).to(tl.float32)
    tl.store(raw + row * V + ids, x, mask=ids < V)
    peak = tl.max(x, 0)
    absent = x == -INF
    tl.store(peaks + row * count + block, peak)
    tl.store(weights + row * count + block, tl.sum(tl.where(absent, 0.0, tl.exp(x - peak)), 0))


@triton.jit(do_not_specialize=_INDEX)
def _extend(
    logits,
    stride,
    prompt,
    output,
    table,
    score,
    peaks,
    weights,
    logp,
    tops,
    V,
    R,
    repetition,
    presence,
    frequency,
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
    x = tl.load(logits + row * stride + ids, mask=ids < V, other=-INF).to(tl.float32)
    x = (x - top) - tl.log(total)
    x = penalise(x, prompt, output, table, R, row, ids, V, repetition, presence, frequency)
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
    group = tl.arange(0, GROUPS)
    ahead = (best[None, :] > best[:, None]) | (
        (best[None, :] == best[:, None]) & (group[None, :] < group[:, None])
    )
    return tl.max(tl.where(tl.sum(ahead.to(tl.int32), 1) == C - 1, best, -INF), 0)


@triton.jit
def _in_order(values, flats, found, totals, places, C, COUNT: tl.constexpr):
    """Writes the `C` best of the list, best first, behind each other; −inf where there are fewer."""
    slots = tl.arange(0, COUNT)
    tl.store(totals + slots, tl.full((COUNT,), float("-inf"), tl.float32), mask=slots >= found)
    tl.store(places + slots, tl.zeros((COUNT,), tl.int32), mask=slots >= found)
    chunk = tl.arange(0, _CHUNK)
    for start in range(0, found, _CHUNK):
        spot = start + chunk
        inside = spot < found
        value = tl.load(values + spot, mask=inside, other=-INF, cache_modifier=".cg")
        flat = tl.load(flats + spot, mask=inside, other=0, cache_modifier=".cg")
        place = tl.zeros((_CHUNK,), tl.int32)
        for other in range(0, found, _CHUNK):
            rival = other + chunk
            real = rival < found
            theirs = tl.load(values + rival, mask=real, other=-INF, cache_modifier=".cg")
            name = tl.load(flats + rival, mask=real, other=0x7FFFFFFF, cache_modifier=".cg")
            equal = (theirs[None, :] == value[:, None]) & (name[None, :] < flat[:, None])
            place += tl.sum(((theirs[None, :] > value[:, None]) | equal).to(tl.int32), 1)
        tl.store(totals + place, value, mask=inside & (place < C))
        tl.store(places + place, flat, mask=inside & (place < C))
    tl.debug_barrier()


@triton.jit
def _to_the(base, exponent):
    """Computes `base ** exponent` of a positive base, rounded once."""
    return tl.exp(exponent.to(tl.float64) * tl.log(base.to(tl.float64))).to(tl.float32)


@triton.jit(do_not_specialize=_INDEX)
def _decide(
    logp,
    tops,
    values,
    flats,
    filled,
    arrived,
    totals,
    places,
    merged,
    table,
    eos,
    score,
    finished,
    length,
    max_length,
    improvable,
    chosen,
    parent,
    over,
    extras,
    V,
    R,
    C,
    E,
    early,
    penalty,
    BLOCK: tl.constexpr,
    TOPS: tl.constexpr,
    GROUPS: tl.constexpr,
    COUNT: tl.constexpr,
    ROWS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Lists continuations that reach the bound; then the step of the search itself."""
    after_others(DEPENDENT)
    block, row = tl.program_id(0), tl.program_id(1)
    programs = tl.num_programs(0) * tl.num_programs(1)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logp + row * V + ids, mask=ids < V, other=-INF)
    offer = tl.load(score + row) + x
    reaches = (offer >= _bound(tops, programs, C, TOPS, GROUPS)) & (offer > -INF)
    offer = tl.where(reaches, offer, -INF)
    number = tl.minimum(tl.sum(reaches.to(tl.int32), 0), C)
    if number > 0:
        first = tl.atomic_add(filled, number, sem="relaxed")
        for i in range(number):
            value, index = tl.max(offer, 0, return_indices=True)
            tl.store(values + first + i, value)
            tl.store(flats + first + i, row * V + block * BLOCK + index)
            offer = tl.where(ids == block * BLOCK + index, -INF, offer)
    if is_last(arrived, programs):
        found = tl.atomic_add(filled, 0, sem="relaxed")
        _in_order(values, flats, found, totals, places, C, COUNT)
        tl.store(filled, 0)
        slots = tl.arange(0, COUNT)
        valid = slots < C
        total = tl.load(totals + slots, mask=valid, other=-INF)
        flat = tl.load(places + slots, mask=valid, other=0)
        token, origin = flat % V, flat // V
        ends = slots < 0
        for e in range(E):
            ends = ends | (token == tl.load(eos + e))
        steps, most = tl.load(length) + 1, tl.load(max_length)
        stop, power = tl.load(table + early * R), tl.load(table + penalty * R)
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
        ahead = (mark[None, :] > mark[:, None]) | (
            (mark[None, :] == mark[:, None]) & (both[None, :] < both[:, None])
        )
        rank = tl.sum(ahead.to(tl.int32), 1)
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
def _move(
    logp,
    final,
    prompt,
    output,
    chosen,
    parent,
    V,
    R,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Gives each row its parent's log-probabilities and counts, and counts its new token."""
    after_others(DEPENDENT)
    ids = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    rows = tl.arange(0, ROWS)
    origin = tl.load(parent + rows, mask=rows < R, other=0)
    token = tl.load(chosen + rows, mask=rows < R, other=0)
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


class FusedBeam:
    """Runs `edge_tui.decoders.beam.Beam.step` as kernels, with the buffers that pass between them.

    Args:
        device: Where everything lies.
        width: Vocabulary `V`.
        rows: Number of beams `R`.
        dependent: Whether kernels get ready while the ones before them end; None where the device can.
        chosen: int64 `[R]`, takes the tokens; a buffer of its own if None.
        parent: int64 `[R]`, takes the rows that each row continues; the same.
    """

    def __init__(
        self,
        device: str,
        width: int,
        rows: int,
        dependent: bool | None = None,
        chosen: Tensor | None = None,
        parent: Tensor | None = None,
    ) -> None:
        self.width, self.rows, self.block = width, rows, block_for(width)
        self._blocks: int = triton.cdiv(width, self.block)
        self._reference = Beam()
        self._options = launch_options(device, dependent)
        # What comes before the first kernel are torch operations and copies, which are waited for in full; so
        # is what comes before a branch.
        self._first = {**self._options, "launch_pdl": False} if self._options["DEPENDENT"] else self._options

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.raw = empty(rows, width)
        """float32 `[R, V]`, a copy of the logits that the last step read."""
        self._logp, self._final = empty(rows, width), empty(rows, width)
        self._peaks, self._weights, self._tops = empty(3, rows, self._blocks)
        self._values, self._flats = empty(rows, width), empty(rows, width, dtype=torch.int32)
        self._totals, self._places = empty(_MOST), empty(_MOST, dtype=torch.int32)
        self._merged = empty(2 * rows)
        self._counters = torch.zeros(2, dtype=torch.int32, device=device)
        self._chosen = empty(rows, dtype=torch.int64) if chosen is None else chosen
        self._parent = empty(rows, dtype=torch.int64) if parent is None else parent
        self._over = empty(rows, dtype=torch.bool)
        self._extras = empty(len(Beam.columns), rows)
        self._counts: tuple[Tensor, ...] = ()
        """Of the prompt and of the output, int32 `[R, V]`, if rows have still to be moved."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`, but that rows move in `finish`."""
        ends = s["eos"].shape[-1]
        most_listed = min(max(2, 1 + ends) * self.rows, self.rows * self.width)
        if most_listed > _MOST:
            self.raw.copy_(outs["model"].logits[:, -1])
            self._counts = ()
            return self._reference.step(outs, s, p, rng)
        logits = outs["model"].logits[:, -1]
        logits = logits if logits.stride(-1) == 1 else logits.contiguous()
        place = {name: index for index, name in enumerate(p)}
        grid, size = (self._blocks, self.rows), (self.width, self.rows)
        rows: int = triton.next_power_of_2(self.rows)
        tops: int = triton.next_power_of_2(self._blocks * self.rows)
        count = max(triton.next_power_of_2(most_listed), rows)
        _scan[grid](
            logits,
            logits.stride(0),
            self.raw,
            self._peaks,
            self._weights,
            self.width,
            BLOCK=self.block,
            **self._first,
        )
        _extend[grid](
            logits,
            logits.stride(0),
            s["prompt_counts"],
            s["output_counts"],
            p.table,
            s["score"],
            self._peaks,
            self._weights,
            self._logp,
            self._tops,
            *size,
            *indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
            BLOCK=self.block,
            PARTS=triton.next_power_of_2(self._blocks),
            **self._options,
        )
        _decide[grid](
            self._logp,
            self._tops,
            self._values,
            self._flats,
            self._counters[:1],
            self._counters[1:],
            self._totals,
            self._places,
            self._merged,
            p.table,
            s["eos"] if ends else s["length"],
            s["score"],
            s["finished"],
            s["length"],
            s["max_length"],
            s["improvable"].view(torch.int8),
            self._chosen,
            self._parent,
            self._over.view(torch.int8),
            self._extras,
            *size,
            most_listed,
            ends,
            *indices(place, EARLY_STOPPING.name, LENGTH_PENALTY.name),
            BLOCK=self.block,
            TOPS=tops,
            GROUPS=min(tops, max(64, 2 * count)),
            COUNT=count,
            ROWS=rows,
            **self._options,
        )
        self._counts = s["prompt_counts"], s["output_counts"]
        extras = dict(zip(Beam.columns, self._extras, strict=True))
        return Step(self._chosen, self._final, parent=self._parent, done=self._over, extras=extras)

    def finish(self) -> None:
        """Moves rows: the step's `final`, and counts in its state."""
        if not self._counts:
            return
        rows: int = triton.next_power_of_2(self.rows)
        block = min(max(2048 // rows, 32), 512)
        _move[(triton.cdiv(self.width, block),)](
            self._logp,
            self._final,
            *self._counts,
            self._chosen,
            self._parent,
            self.width,
            self.rows,
            ROWS=rows,
            BLOCK=block,
            **self._first,
        )
