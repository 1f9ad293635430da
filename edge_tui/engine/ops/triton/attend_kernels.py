"""Computes a layer's attention of a decode step in one kernel, and moves the rows of forked contexts.

The keys of each head are cut into pieces of equal length, one program each. How many pieces there are
follows the live length; programs beyond it leave at once, so the grid can stay what it was when it was
captured. All queries that share a key head ride along, so each key is read once. The last piece's program
also owns the new positions: it writes their keys and values and attends to them from its registers. The
program that finishes last joins the results, in the order of the pieces, so the same input gives the same
bits.

Between two products of one token there is little to compute and much to wait for, so what does not depend on
the kernel before is fetched while that one still runs: the length, the angles, and a hint about old keys and
values. What does depend on it is asked for together, before any of it is used.

Source: Flash-Decoding (arXiv 2307.08691 for the tiles; the split over keys is its sequel for decoding).
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call, possibly-undefined"

from __future__ import annotations

import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from edge_tui.engine.ops.triton.epilogue import capped
from edge_tui.engine.ops.triton.launch import COMPILED, after_others


@triton.jit
def _cut(past, limit, split, splits, least, OWN: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr):
    """Returns a piece's first and last position, and the number of pieces.

    With `OWN` the new position, the first after `held`, is one of them.
    """
    first = 0
    if WINDOW > 0:
        first = tl.maximum(tl.minimum(past, limit) - WINDOW + 1, 0)
    last = tl.minimum(past + 1, limit) if OWN else tl.minimum(past, limit)
    tiles = tl.cdiv(last - first, BLOCK)
    share = tl.maximum(tl.cdiv(tiles, splits), least)
    pieces = tl.maximum(tl.cdiv(tiles, share), 1)
    start = first + split * share * BLOCK
    return start, tl.minimum(start + share * BLOCK, last), pieces


@triton.jit
def _fetch(keys, values, start, end, D: tl.constexpr):
    """Asks for a piece's keys and values to be brought into the level 2 cache, and does not wait."""
    ASK: tl.constexpr = "prefetch.global.L2 [$1]; mov.u32 $0, 0;"
    LINE: tl.constexpr = 128 * 8 // keys.dtype.element_ty.primitive_bitwidth
    offsets = tl.arange(0, 128) * LINE
    for at in range(start * D, end * D, 128 * LINE):
        here = tl.minimum(at + offsets, end * D - 1)
        tl.inline_asm_elementwise(ASK, "=r,l", [keys + here], dtype=tl.int32, is_pure=False, pack=1)
        tl.inline_asm_elementwise(ASK, "=r,l", [values + here], dtype=tl.int32, is_pure=False, pack=1)


@triton.jit
def _angles(cos, sin, position, reach, DP: tl.constexpr, ROTARY: tl.constexpr, ANGLES: tl.constexpr):
    """Returns cosines and signed sines of positions `[N]`, `[N, DP]`: 1 and 0 for columns that stay."""
    d = tl.arange(0, DP)
    at = tl.minimum(position, reach - 1)[:, None] * ANGLES + d[None, :]
    turning = (d < ROTARY)[None, :] & (position >= 0)[:, None]
    c = tl.load(cos + at, mask=turning, other=1.0).to(tl.float32)
    s = tl.load(sin + at, mask=turning, other=0.0).to(tl.float32)
    return c, s


@triton.jit
def _heads(source, live, D: tl.constexpr, DP: tl.constexpr, ROTARY: tl.constexpr):
    """Loads heads `[N, DP]` whose first columns `source` points to, and each number's partner in the rotary.

    Rows that are not `live` are zero.
    """
    d = tl.arange(0, DP)
    inside = live[:, None] & (d < D)[None, :]
    x = tl.load(source[:, None] + d[None, :], mask=inside, other=0.0)
    if ROTARY == 0:
        return x, x
    else:
        partner = tl.where(d < ROTARY, (d + ROTARY // 2) % ROTARY, d)
        if ROTARY % 16 == 0:
            partner = tl.max_contiguous(tl.multiple_of(partner, 8), 8)
        return x, tl.load(source[:, None] + partner[None, :], mask=inside, other=0.0)


@triton.jit
def _gains(norm, head, live, D: tl.constexpr, DP: tl.constexpr, ROTARY: tl.constexpr):
    """Returns the gains of a norm, if there is one, on heads and their partners."""
    if norm is not None:
        return _heads(norm + head * D, live, D, DP, ROTARY)
    else:
        return 1.0, 1.0


@triton.jit
def _part_scale(part, eps, WIDTH: tl.constexpr):
    """Returns the factor of a norm over all queries, or keys, of one token."""
    at = tl.arange(0, triton.next_power_of_2(WIDTH))
    x = tl.load(part + at, mask=at < WIDTH, other=0.0).to(tl.float32)
    return tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)


@triton.jit
def _rotate(x, y, norm, gain, partner_gain, scale, c, s, eps, D: tl.constexpr):
    """Normalises and rotates heads `x` with partners `y`, float32; `c` and `s` are `_angles`.

    The norm is that of each head, unless it has a `scale`.
    """
    x = x.to(tl.float32)
    y = y.to(tl.float32)
    if norm is not None:
        if scale is None:
            scale = tl.rsqrt(tl.sum(x * x, 1) / D + eps)[:, None]
        x *= scale * gain.to(tl.float32)
        y *= scale * partner_gain.to(tl.float32)
    return x * c + y * s


@triton.jit
def _weigh(q, key, visible, scale, cap, top, total, BLIND: tl.constexpr):
    """Takes a tile's keys into the running softmax.

    With `BLIND` a query may have seen nothing yet.

    Returns:
        The tile's shares `[MP, N]`, what earlier ones are to be multiplied by, the new peak and the new sum.
    """
    scores = tl.dot(q, tl.trans(key), input_precision="ieee") * scale
    if cap is not None:
        scores = capped(scores, cap)
    scores = tl.where(visible, scores, float("-inf"))
    peak = tl.maximum(top, tl.max(scores, 1))
    calm = tl.where(peak == float("-inf"), 0.0, peak) if BLIND else peak  # −∞ less −∞ is no number
    share = tl.exp2(scores - calm[:, None])
    fade = tl.exp2(top - calm)
    return share, fade, peak, total * fade + tl.sum(share, 1)


@triton.jit
def _join(
    out,
    partial,
    weight,
    pieces,
    token,
    head,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    M: tl.constexpr,
    D: tl.constexpr,
    TILE: tl.constexpr,
    AHEAD: tl.constexpr,
):
    """Writes the mean of all pieces' results by their weights.

    `partial` and `weight` point to the first piece; `token` is the row's first.
    """
    for begin in range(0, M * D, TILE):
        e = begin + tl.arange(0, TILE)
        m = e // D
        top = tl.full([TILE], float("-inf"), tl.float32)
        total = tl.zeros([TILE], tl.float32)
        mixed = tl.zeros([TILE], tl.float32)
        for some in range(0, pieces, AHEAD):
            piece = some + tl.arange(0, AHEAD)
            inside = (piece < pieces)[:, None] & (e < M * D)[None, :]
            there = piece[:, None] * M
            w_at = weight + there + m[None, :]
            w = tl.load(w_at, mask=inside, other=float("-inf"), cache_modifier=".cg")
            x = tl.load(partial + there * D + e[None, :], mask=inside, other=0.0, cache_modifier=".cg")
            peak = tl.maximum(top, tl.max(w, 0))
            calm = tl.where(peak == float("-inf"), 0.0, peak)
            share = tl.exp2(w - calm[None, :])
            fade = tl.exp2(top - calm)
            total = total * fade + tl.sum(share, 0)
            mixed = mixed * fade + tl.sum(x * share, 0)
            top = peak
        place = (token + m // GROUP) * HEADS + head * GROUP + m % GROUP
        tl.store(out + place * D + e % D, (mixed / total).to(out.dtype.element_ty), mask=e < M * D)


@triton.jit(do_not_specialize=["capacity", "room", "copies", "reach", "splits", "least"])
def attend_kernel(
    qkv,
    sources,
    length,
    angles,
    norm,
    sinks,
    out,
    scratch,
    capacity,
    room,
    copies,
    reach,
    splits,
    least,
    scale,
    cap,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    ROTARY: tl.constexpr,
    ANGLES: tl.constexpr,
    WINDOW: tl.constexpr,
    OVER_HEADS: tl.constexpr,
    BLOCK: tl.constexpr,
    MP: tl.constexpr,
    DP: tl.constexpr,
    NP: tl.constexpr,
    TILE: tl.constexpr,
    AHEAD: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Attends from `K` new positions of a row to one piece of a key head's past; the last one joins all.

    The grid is (rows, key heads, pieces). `attend.attend` describes the arguments.
    """
    root, fork, base, owner = sources
    cos, sin = angles
    partial, weight, arrived = scratch
    FORK: tl.constexpr = fork is not None
    GROUP: tl.constexpr = HEADS // KV_HEADS
    M: tl.constexpr = GROUP * K  # queries of a key head
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * D
    NEVER: tl.constexpr = float("-inf")
    OWN: tl.constexpr = K == 1  # the new position is one of a tile, and needs no product of its own
    dtype = root.dtype.element_ty
    row, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    plane = capacity.to(tl.int64) * D
    keys = root + head * plane
    fork_plane = room.to(tl.int64) * D
    if FORK:
        fork_keys = fork + head * fork_plane
        keys += (row // copies) * (2 * KV_HEADS * plane)
    else:
        keys += row * (2 * KV_HEADS * plane)
    values = keys + KV_HEADS * plane
    m = tl.arange(0, MP)
    d = tl.arange(0, DP)
    step = m // GROUP
    ahead = tl.arange(0, 1) if OWN else step
    tile = tl.arange(0, BLOCK)
    if DEPENDENT:
        gdc_launch_dependents()
    # Before the wait a length may be that of a step ago. It is looked at again.
    early = tl.load(length + row, cache_modifier=".cg").to(tl.int32)
    start, end, pieces = _cut(early, capacity, split, splits, least, OWN, WINDOW, BLOCK)
    c, s = _angles(cos, sin, early + ahead, reach, DP, ROTARY, ANGLES)
    if COMPILED:
        old = tl.minimum(end, early)
        if FORK:
            old = tl.minimum(old, tl.load(base + row, cache_modifier=".cg").to(tl.int32))
        _fetch(keys, values, start, old, D)
    query = head * GROUP + m % GROUP
    real = m < M
    n = tl.arange(0, NP)
    new = n < K
    gain, partner_gain = _gains(norm, query, real, D, DP, ROTARY)
    new_gain, new_partner_gain = _gains(norm, HEADS + head + n * 0, new, D, DP, ROTARY)
    columns = (d < D)[None, :]
    raw = qkv + (row * K + n) * WIDTH + (HEADS + head) * D
    if DEPENDENT:
        gdc_wait()
    # What comes from the kernel before is asked for together.
    past = tl.load(length + row, cache_modifier=".cg").to(tl.int32)
    x, y = _heads(qkv + (row * K + step) * WIDTH + query * D, real, D, DP, ROTARY)
    new_x, new_y = _heads(raw, new, D, DP, ROTARY)
    q_scale = None
    new_scale = None
    if OVER_HEADS:
        q_scale = _part_scale(qkv + row * WIDTH, eps, HEADS * D)
        new_scale = _part_scale(qkv + row * WIDTH + HEADS * D, eps, KV_HEADS * D)
    new_value_at = (raw + KV_HEADS * D)[:, None] + d[None, :]
    new_value = tl.load(new_value_at, mask=new[:, None] & columns, other=0.0)
    origin = 0
    limit = capacity
    if FORK:
        origin = tl.load(base + row, cache_modifier=".cg").to(tl.int32)
        limit = tl.minimum(capacity, origin + room)
    if (past != early) | FORK:
        start, end, pieces = _cut(past, limit, split, splits, least, OWN, WINDOW, BLOCK)
        c, s = _angles(cos, sin, past + ahead, reach, DP, ROTARY, ANGLES)
    if split >= pieces:
        return

    q = _rotate(x, y, norm, gain, partner_gain, q_scale, c, s, eps, D).to(dtype)
    now = past + n
    new_c, new_s = c, s
    if not OWN:
        new_c, new_s = _angles(cos, sin, now, reach, DP, ROTARY, ANGLES)
    new_key = _rotate(new_x, new_y, norm, new_gain, new_partner_gain, new_scale, new_c, new_s, eps, D)
    new_key = new_key.to(dtype)
    top = tl.full([MP], NEVER, tl.float32)
    total = tl.zeros([MP], tl.float32)
    mixed = tl.zeros([MP, DP], tl.float32)
    if sinks is not None:
        # A key without a value, which one of the pieces has seen before all others.
        sink = tl.load(sinks + query, mask=real, other=0.0).to(tl.float32) * 1.4426950408889634
        top = tl.where(split == pieces - 1, sink, top)
        total = tl.where(split == pieces - 1, total + 1.0, total)

    if split == pieces - 1:
        put = new & (now >= origin) & (now < limit)
        if FORK:
            slot = now - origin
            target = fork_keys + row * (2 * KV_HEADS * fork_plane) + slot * D
            gap = KV_HEADS * fork_plane
            if head == 0:
                tl.store(owner + row * room + slot, (n * 0 + row).to(tl.int32), mask=put)
        else:
            target = keys + now * D
            gap = KV_HEADS * plane
        tl.store(target[:, None] + d[None, :], new_key, mask=put[:, None] & columns)
        tl.store((target + gap)[:, None] + d[None, :], new_value, mask=put[:, None] & columns)
        if not OWN:
            before = (n[None, :] <= step[:, None]) & new[None, :]
            if WINDOW > 0:
                before = before & (n[None, :] > step[:, None] - WINDOW)
            share, _, top, total = _weigh(q, new_key, before, scale, cap, top, total, False)
            mixed = tl.dot(share.to(dtype), new_value, input_precision="ieee")

    for begin in range(start, end, BLOCK):
        position = begin + tile
        live = position < tl.minimum(end, past)
        key_at = keys + position * D
        value_at = values + position * D
        if FORK:
            later = position - origin
            who = tl.load(owner + row * room + later, mask=live & (later >= 0), other=0)
            there = fork_keys + who * (2 * KV_HEADS * fork_plane) + later * D
            key_at = tl.where(later >= 0, there, key_at)
            value_at = tl.where(later >= 0, there + KV_HEADS * fork_plane, value_at)
        inside = live[:, None] & columns
        key = tl.load(key_at[:, None] + d[None, :], mask=inside, other=0.0)
        visible = (position < end)[None, :]
        if WINDOW > 0:
            visible = visible & (position[None, :] > (past + step - WINDOW)[:, None])
        # Values take the shared memory that keys took, so they must not lie there before these are used:
        # what this kernel takes is missing from the cache of those around it.
        if OWN:
            own = (position == past)[:, None]
            key = tl.where(own, new_key, key)
            value = tl.load(value_at[:, None] + d[None, :], mask=inside, other=0.0)
            share, fade, top, total = _weigh(q, key, visible, scale, cap, top, total, WINDOW > 0)
            value = tl.where(own, new_value, value)
        else:
            share, fade, top, total = _weigh(q, key, visible, scale, cap, top, total, WINDOW > 0)
            value = tl.load(value_at[:, None] + d[None, :], mask=inside, other=0.0)
        mixed = tl.dot(share.to(dtype), value, mixed * fade[:, None], input_precision="ieee")

    mixed /= tl.where(total == 0.0, 1.0, total)[:, None]
    head_index = row * KV_HEADS + head
    valid = real[:, None] & columns
    if pieces == 1:
        result = out + (row * K + step) * (HEADS * D) + query * D
        tl.store(result[:, None] + d[None, :], mixed.to(out.dtype.element_ty), mask=valid)
    else:
        place = (head_index * splits + split) * M + m
        tl.store(partial + place[:, None] * D + d[None, :], mixed, mask=valid)
        tl.store(weight + place, top + tl.log2(total), mask=real)
        tl.debug_barrier()  # the count must not run ahead of what other threads of this program store
        if tl.atomic_add(arrived + head_index, 1, sem="acq_rel") == pieces - 1:
            tl.store(arrived + head_index, 0)
            first = head_index * splits * M
            results, weights = partial + first * D, weight + first
            _join(out, results, weights, pieces, row * K, head, HEADS, GROUP, M, D, TILE, AHEAD)


@triton.jit
def follow_kernel(owner, parent, room, R, ROWS: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    """Moves all rows of its positions in one program, so that none is written before all are read."""
    slot = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)
    after_others(DEPENDENT)
    origin = tl.load(parent + row, mask=row < R, other=0)
    inside = (row < R)[:, None] & (slot < room)[None, :]
    owners = tl.load(owner + origin[:, None] * room + slot[None, :], mask=inside, other=0)
    tl.debug_barrier()
    tl.store(owner + row[:, None] * room + slot[None, :], owners, mask=inside)
