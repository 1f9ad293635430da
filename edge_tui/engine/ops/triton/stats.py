"""Computes `stats.record` as two kernels, over the raw logits and the final ones at once.

The first leaves, for each distribution, its normaliser, entropy and the rank of the chosen token, and a
bound that none of the `TOP` best lies below: the `TOP`-th greatest of the programs' maxima. The second
collects the few candidates that reach the bound, and puts them in order by counting, for each, how many are
better. Equal logits are ordered by id.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from edge_tui.engine.ops.triton.choose_parts import append_best, is_last, take_best
from edge_tui.engine.token_fields import KEPT, OWN, TOP, UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_INF = tl.constexpr(float("inf"))
_TOP = tl.constexpr(TOP)
_LEAD_INTS = tl.constexpr(6)
_LEAD_FLOATS = tl.constexpr(4)
_WIDTH = tl.constexpr(6 + 3 * TOP)
"""Integers of a record."""
_KEPT = tl.constexpr(KEPT)
_UNKNOWN = tl.constexpr(UNKNOWN)
_OWN = tl.constexpr(OWN)
_FACTS = tl.constexpr(4)
"""Facts of a distribution after the first kernel: normaliser, entropy, bound, chosen logit."""


class Sides(NamedTuple):
    """Holds raw logits of any precision and final ones, and numbers from row to row.

    `moved` names the row of `raw` that each row continues, where that is not its own; else it is None.
    """

    raw: Any
    raw_stride: Any
    final: Any
    final_stride: Any
    moved: Any


class Decision(NamedTuple):
    """Holds the arguments of `stats.record` with a number for each row, the link that removed each token int8
    `[R, V]`, and the tokens that end a row; these two and the margin may be None.
    """

    chosen: Any
    parent: Any
    done: Any
    version: Any
    margin: Any
    removing: Any
    ends: Any


class Scratch(NamedTuple):
    """Holds the numbers that pass between the two kernels, for both sides of each row."""

    parts: Any
    over: Any
    left: Any
    facts: Any
    ranks: Any
    counts: Any
    scores: Any
    tokens: Any
    filled: Any
    arrived: Any


@triton.jit
def _offset(sides, row, side):
    """Returns where a side of a row begins: 0 the raw logits of the continued row, 1 the final ones."""
    origin = row.to(tl.int64)
    if sides.moved is not None:
        origin = tl.load(sides.moved + row)
    return tl.where(side == 0, origin * sides.raw_stride, row.to(tl.int64) * sides.final_stride)


@triton.jit
def _load(sides, offset, ids, V, side):
    """Loads logits of one side, float32; −inf beyond the vocabulary."""
    inside = ids < V
    if side == 0:
        x = tl.load(sides.raw + offset + ids, mask=inside, other=-_INF).to(tl.float32)
    else:
        x = tl.load(sides.final + offset + ids, mask=inside, other=-_INF).to(tl.float32)
    return x


@triton.jit
def _scan(sides, decision, scratch, V, BLOCK: tl.constexpr, PARTS: tl.constexpr):
    """Leaves maximum, weight, first moment and rank of each program's part."""
    block, row, side = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count, rows = tl.num_programs(0), tl.num_programs(1)
    offset = _offset(sides, row, side)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = _load(sides, offset, ids, V, side)
    picked = _load(sides, offset, tl.load(decision.chosen + row), V, side)
    peak = tl.max(x, 0)
    # Removed candidates weigh nothing; what is broken (NaN, +inf) stays to be seen in the sums.
    removed = x == -_INF
    below = tl.where(removed, 0.0, x - peak)
    weight = tl.where(removed, 0.0, tl.exp(below))
    line = side * rows + row
    mine = scratch.parts + 3 * line * count + block
    tl.store(mine, peak)
    tl.store(mine + count, tl.sum(weight, 0))
    tl.store(mine + 2 * count, tl.sum(weight * below, 0))
    tl.store(scratch.over + line * count + block, tl.sum((x > picked).to(tl.int32), 0))
    tl.store(scratch.left + line * count + block, tl.sum((x > -_INF).to(tl.int32), 0))
    if is_last(scratch.arrived + line, count):
        spots = tl.arange(0, PARTS)
        valid = spots < count
        address = scratch.parts + 3 * line * count + spots
        peaks = tl.load(address, mask=valid, other=-_INF, cache_modifier=".cg")
        weights = tl.load(address + count, mask=valid, other=0.0, cache_modifier=".cg")
        moments = tl.load(address + 2 * count, mask=valid, other=0.0, cache_modifier=".cg")
        top = tl.max(peaks, 0)
        empty = peaks == -_INF
        gap = tl.where(empty, 0.0, peaks - top)
        scale = tl.where(empty, 0.0, tl.exp(gap))
        total = tl.sum(weights * scale, 0)
        moment = tl.sum((moments + gap * weights) * scale, 0)
        better = tl.sum((peaks[None, :] > peaks[:, None]).to(tl.int32), 1)
        bound = tl.min(tl.where(better < _TOP, peaks, _INF), 0)
        bound = tl.where(count < _TOP, -_INF, bound)
        facts = scratch.facts + _FACTS * line
        tl.store(facts, top + tl.log(total))
        tl.store(facts + 1, tl.log(total) - moment / total)
        tl.store(facts + 2, bound)
        tl.store(facts + 3, picked)
        greater = tl.load(scratch.over + line * count + spots, mask=valid, other=0, cache_modifier=".cg")
        tl.store(scratch.ranks + line, tl.sum(greater, 0))
        left = tl.load(scratch.left + line * count + spots, mask=valid, other=0, cache_modifier=".cg")
        tl.store(scratch.counts + line, tl.sum(left, 0))


@triton.jit
def _find_removals(sides, ids, removing, stages, row, V):
    """Tells which link removed each of a row's raw alternatives; without a table the strategy did."""
    slots = tl.arange(0, 32)
    shown = slots < _TOP
    token = tl.load(ids + slots, mask=shown, other=-1)
    place = row.to(tl.int64) * sides.final_stride + token
    final = tl.load(sides.final + place, mask=token >= 0, other=-_INF).to(tl.float32)
    stage = tl.full((32,), _OWN, tl.int32)
    if removing is not None:
        stage = tl.load(removing + row.to(tl.int64) * V + token, mask=token >= 0, other=0).to(tl.int32)
    stage = tl.where(final > -_INF, _KEPT, stage)
    tl.store(stages + slots, tl.where(token >= 0, stage, _UNKNOWN), mask=shown)


@triton.jit
def _pack(
    sides,
    decision,
    scratch,
    ints,
    floats,
    extras,  # float32 `[R]` each, or None
    V,
    floats_stride,
    BLOCK: tl.constexpr,
    ENDS: tl.constexpr,
    EXTRAS: tl.constexpr,
):
    """Lists candidates that reach the bound, sorts them, and writes the record."""
    block, row, side = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    count, rows = tl.num_programs(0), tl.num_programs(1)
    offset = _offset(sides, row, side)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = _load(sides, offset, ids, V, side)
    line = side * rows + row
    facts, filled = scratch.facts + _FACTS * line, scratch.filled + line
    valid = (x >= tl.load(facts + 2)) & (x > -_INF)
    x = tl.where(valid, x, -_INF)
    found = tl.minimum(tl.sum(valid.to(tl.int32), 0), _TOP)
    room = line * count * _TOP
    values, tokens = scratch.scores + room, scratch.tokens + room
    append_best(values, tokens, filled, x, found, block * BLOCK, BLOCK)
    if is_last(scratch.arrived + rows * 2 + line, count):
        normaliser = tl.load(facts)
        head = ints + row * _WIDTH
        top_ids = head + _LEAD_INTS + side * _TOP
        top_logps = floats + row * floats_stride + _LEAD_FLOATS + side * _TOP
        take_best(values, tokens, filled, normaliser, top_logps, top_ids, _TOP, -1, 32)
        logp = tl.load(facts + 3) - normaliser
        tl.store(floats + row * floats_stride + side, logp)
        if side == 0:
            tl.store(floats + row * floats_stride + 2, tl.load(facts + 1))
            _find_removals(sides, top_ids, decision.removing, head + _LEAD_INTS + 2 * _TOP, row, V)
            margin = float("nan")
            if decision.margin is not None:
                margin = tl.load(decision.margin + row)
            tl.store(floats + row * floats_stride + 3, margin)
            for each in tl.static_range(EXTRAS):
                place = floats + row * floats_stride + _LEAD_FLOATS + 2 * _TOP + each
                tl.store(place, tl.load(extras[each] + row))
            chosen = tl.load(decision.chosen + row)
            done = tl.load(decision.done + row).to(tl.int32)
            for each in tl.static_range(ENDS):
                done |= (tl.load(decision.ends + each) == chosen).to(tl.int32)  # `ENDED` is 1
            tl.store(head, chosen.to(tl.int32))
            tl.store(head + 1, tl.load(decision.parent + row).to(tl.int32))
            tl.store(head + 2, tl.load(scratch.ranks + line))
            tl.store(head + 3, done)
            tl.store(head + 4, tl.load(decision.version + row).to(tl.int32))
            tl.store(head + 5, tl.load(scratch.counts + rows + row))


@triton.jit
def _look_up(column, ints, floats, V, floats_stride, start):
    """Looks a column up at the alternatives of a row; NaN where there is none."""
    row = tl.program_id(0)
    slots = tl.arange(0, 64)
    shown = slots < 2 * _TOP
    token = tl.load(ints + row * _WIDTH + _LEAD_INTS + slots, mask=shown, other=-1)
    value = tl.load(column + row * V + token, mask=token >= 0, other=float("nan"))
    tl.store(floats + row * floats_stride + start + slots, value, mask=shown)


def cut(width: int) -> tuple[int, int]:
    """Returns how many candidates a program takes, and how many programs a row."""
    share: int = triton.next_power_of_2(triton.cdiv(width, 64))
    block = min(max(share, 32), 2048)
    return block, triton.cdiv(width, block)


@cache
def scratch_of(device: torch.device, rows: int, width: int) -> Scratch:
    """Makes scratch for one shape, for as long as the process: a captured graph holds its addresses."""
    blocks = cut(width)[1]

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(2, rows, *shape, dtype=dtype, device=device)

    return Scratch(
        parts=empty(3, blocks),
        over=empty(blocks, dtype=torch.int32),
        left=empty(blocks, dtype=torch.int32),
        facts=empty(_FACTS.value),
        ranks=empty(dtype=torch.int32),
        counts=empty(dtype=torch.int32),
        scores=empty(blocks * TOP),
        tokens=empty(blocks * TOP, dtype=torch.int32),
        filled=torch.zeros(2, rows, dtype=torch.int32, device=device),
        arrived=torch.zeros(2, 2, rows, dtype=torch.int32, device=device),
    )


def record(
    z: Tensor,
    final: Tensor,
    chosen: Tensor,
    parent: Tensor,
    done: Tensor,
    version: Tensor,
    extras: list[Tensor],
    moved: bool,
    candidates: Sequence[Tensor] = (),
    margin: Tensor | None = None,
    removing_stage: Tensor | None = None,
    ends: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Launches `stats.record`. Records of one shape share scratch, so they must follow one another."""
    rows, width = final.shape
    # A strategy's tensors may be views: one number expanded to all rows, a transposed table.
    z, final = (each if each.stride(-1) == 1 else each.contiguous() for each in (z, final))
    chosen, parent, done, version = (each.contiguous() for each in (chosen, parent, done, version))
    candidates = [each.contiguous() for each in candidates]
    scratch = scratch_of(z.device, rows, width)
    block, blocks = cut(width)
    sides = Sides(z, z.stride(0), final, final.stride(0), parent if moved else None)
    margin = None if margin is None else margin.contiguous()
    count = 0 if ends is None else len(ends)
    decision = Decision(chosen, parent, done, version, margin, removing_stage, ends if count else None)
    ints = torch.empty(rows, _WIDTH.value, dtype=torch.int32, device=z.device)
    columns = _LEAD_FLOATS.value + 2 * TOP
    extras_end = columns + len(extras)
    floats = torch.empty(rows, extras_end + 2 * TOP * len(candidates), dtype=torch.float32, device=z.device)
    given = tuple(extra.float().expand(rows).contiguous() for extra in extras) or None
    grid = (blocks, rows, 2)
    _scan[grid](sides, decision, scratch, width, BLOCK=block, PARTS=triton.next_power_of_2(blocks))
    arguments = sides, decision, scratch, ints, floats, given, width, floats.stride(0)
    _pack[grid](*arguments, BLOCK=block, ENDS=count, EXTRAS=len(extras))
    for index, candidate in enumerate(candidates):
        _look_up[(rows,)](candidate, ints, floats, width, floats.stride(0), extras_end + 2 * TOP * index)
    return ints, floats


@triton.jit
def _copy(source, goal, size, BLOCK: tl.constexpr):
    for start in range(0, size, BLOCK):
        spot = start + tl.arange(0, BLOCK)
        tl.store(goal + spot, tl.load(source + spot, mask=spot < size), mask=spot < size)


@triton.jit
def _post(ints, floats, int_slots, float_slots, turn, int_size, float_size, depth, BLOCK: tl.constexpr):
    """Posts in one program, so that the turn is counted once."""
    now = tl.load(turn)
    slot = (now % depth).to(tl.int32)
    _copy(ints, int_slots + slot * int_size, int_size, BLOCK)
    _copy(floats, float_slots + slot * float_size, float_size, BLOCK)
    tl.debug_barrier()  # every lane has read the turn
    tl.store(turn, now + 1)


def post(ints: Tensor, floats: Tensor, int_slots: Tensor, float_slots: Tensor, turn: Tensor) -> None:
    """Puts a record into the slot whose turn it is, and counts.

    Args:
        ints: `[R, I]`.
        floats: float32 `[R, F]`.
        int_slots: `[depth, R, I]`, where the device can write: its own memory or pinned memory of the host.
        float_slots: `[depth, R, F]`.
        turn: int64 `[1]`; the slot is its rest by `depth`. Raised by 1.
    """
    depth = len(int_slots)
    _post[(1,)](ints, floats, int_slots, float_slots, turn, ints.numel(), floats.numel(), depth, BLOCK=256)
