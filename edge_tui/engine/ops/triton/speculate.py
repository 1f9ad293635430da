"""Runs speculative decoding as kernels: one proposes a token, two check all proposals.

What `edge_tui.decoders.speculative` keeps as distributions, these keep as logits with their maximum and
normaliser, so that nothing is written twice. Of the two that check, the first prepares the target's
distribution at every position; in the second each program works out for itself how many proposals are taken,
and looks for the token that follows among its part of the corrected distribution.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from edge_tui.decoders.base import Step
from edge_tui.decoders.core.random import TOKEN_BITS
from edge_tui.decoders.speculative import CORRECTION, Speculative
from edge_tui.decoders.temperature import GREEDY_BELOW, TEMPERATURE
from edge_tui.engine.ops.triton.choose_parts import (
    INF,
    block_for,
    gumbel,
    is_last,
    launch_options,
    uniform,
)
from edge_tui.engine.ops.triton.launch import after_others

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_GREEDY_BELOW = tl.constexpr(GREEDY_BELOW)
_LANE = tl.constexpr((1 << TOKEN_BITS) - 1)
"""Id whose number decides about a proposal: lane 0."""
_CORRECTION = tl.constexpr(CORRECTION)
_INDEX = ("at", "temperature", "V", "R", "positions", "stride", "step_stride")


@triton.jit
def _scaled(logits, ids, V, tau):
    """Returns logits at a temperature, float32; −inf beyond the vocabulary and in place of NaN."""
    x = tl.load(logits + ids, mask=ids < V, other=-INF).to(tl.float32)
    x = tl.where(x == x, x, -INF)
    return tl.div_rn(x, tl.zeros_like(x) + tl.where(tau < _GREEDY_BELOW, 1.0, tau))


@triton.jit
def _leave(z, score, ids, peaks, weights, best, at, spot):
    """Leaves a program's part: maximum, weight, and the candidate of the best score."""
    peak = tl.max(z, 0)
    top, index = tl.max(score, 0, return_indices=True)
    tl.store(peaks + spot, peak)
    tl.store(weights + spot, tl.sum(tl.where(z == -INF, 0.0, tl.exp(z - peak)), 0))
    tl.store(best + spot, top)
    tl.store(at + spot, tl.max(tl.where(tl.arange(0, ids.shape[0]) == index, ids, 0), 0))


@triton.jit
def _winner(best, at, line, count, PARTS: tl.constexpr):
    """Finds the best of all parts of a line, the first of equals: its score and its id."""
    parts = tl.arange(0, PARTS)
    tops = tl.load(best + line * count + parts, mask=parts < count, other=-INF, cache_modifier=".cg")
    top, part = tl.max(tops, 0, return_indices=True)
    return top, tl.load(at + line * count + part, cache_modifier=".cg")


@triton.jit
def _sum_up(peaks, weights, facts, z, token, line, count, V, greedy, PARTS: tl.constexpr):
    """Keeps a line's maximum and normaliser; without a temperature the token alone is left."""
    parts = tl.arange(0, PARTS)
    valid = parts < count
    peak = tl.load(peaks + line * count + parts, mask=valid, other=-INF, cache_modifier=".cg")
    weight = tl.load(weights + line * count + parts, mask=valid, other=0.0, cache_modifier=".cg")
    top = tl.max(peak, 0)
    total = tl.sum(tl.where(peak == -INF, 0.0, weight * tl.exp(peak - top)), 0)
    tl.store(facts + 2 * line, top)
    tl.store(facts + 2 * line + 1, tl.where(greedy, 1.0, total))
    if greedy:
        tl.store(z + line * V + token, top)


@triton.jit(do_not_specialize=_INDEX)
def _propose(
    logits,
    stride,
    table,
    drafts,
    facts,
    proposed,
    peaks,
    weights,
    best,
    ids_at,
    arrived,
    key,
    lane,
    step,
    V,
    R,
    positions,
    at,
    temperature,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Draws one proposal, and keeps what it was drawn from."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    line = row * positions + at
    ids = block * BLOCK + tl.arange(0, BLOCK)
    tau = tl.load(table + temperature * R + row)
    greedy = tau < _GREEDY_BELOW
    z = _scaled(logits + row * stride, ids, V, tau)
    tl.store(drafts + line * V + ids, tl.where(greedy, -INF, z), mask=ids < V)
    score = z
    if not greedy:
        score = z + gumbel(ids, tl.load(key + row), tl.load(lane + row), tl.load(step) + at)
    _leave(z, score, tl.minimum(ids, V - 1), peaks, weights, best, ids_at, line * count + block)
    if is_last(arrived + row, count):
        _, token = _winner(best, ids_at, line, count, PARTS)
        _sum_up(peaks, weights, facts, drafts, token, line, count, V, greedy, PARTS)
        tl.store(proposed + line, token.to(tl.int64))


@triton.jit(do_not_specialize=_INDEX)
def _read(
    logits,
    stride,
    step_stride,
    table,
    final,
    facts,
    peaks,
    weights,
    best,
    ids_at,
    arrived,
    V,
    R,
    temperature,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Reads the target's distribution at one position."""
    after_others(DEPENDENT)
    block, count = tl.program_id(0), tl.num_programs(0)
    place, row = tl.program_id(1), tl.program_id(2)
    line = row * tl.num_programs(1) + place
    ids = block * BLOCK + tl.arange(0, BLOCK)
    tau = tl.load(table + temperature * R + row)
    greedy = tau < _GREEDY_BELOW
    z = _scaled(logits + row * stride + place * step_stride, ids, V, tau)
    tl.store(final + line * V + ids, tl.where(greedy, -INF, z), mask=ids < V)
    _leave(z, z, tl.minimum(ids, V - 1), peaks, weights, best, ids_at, line * count + block)
    if is_last(arrived + line, count):
        _, token = _winner(best, ids_at, line, count, PARTS)
        _sum_up(peaks, weights, facts, final, token, line, count, V, greedy, PARTS)


@triton.jit
def _probability(z, facts, line):
    """Computes the probability from logits of a line whose maximum and normaliser are known."""
    top, total = tl.load(facts + 2 * line), tl.load(facts + 2 * line + 1)
    z = tl.where(z == -INF, 0.0, tl.exp(tl.where(z == -INF, 0.0, z - top)))
    return tl.div_rn(z, tl.zeros_like(z) + total)


@triton.jit(do_not_specialize=_INDEX)
def _check(
    final,
    facts,
    drafts,
    draft_facts,
    proposed,
    key,
    lane,
    step,
    best,
    ids_at,
    arrived,
    chosen,
    accepted,
    tokens,
    extras,
    V,
    R,
    positions,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Counts the accepted proposals, and chooses what follows them."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    seed, number, now = tl.load(key + row), tl.load(lane + row), tl.load(step)
    n_accepted = tl.full((), 0, tl.int32)
    for i in tl.static_range(K - 1):
        token = tl.maximum(tl.load(proposed + row * positions + i), 0)
        line, draft = row * K + i, row * positions + i
        p = _probability(tl.load(final + line * V + token), facts, line)
        q = _probability(tl.load(drafts + draft * V + token), draft_facts, draft)
        luck = uniform(tl.full((), _LANE, tl.int64), seed, number, now + i)
        n_accepted += tl.where((luck * q < p) & (n_accepted == i), 1, 0)

    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < V
    line = row * K + n_accepted
    p = _probability(tl.load(final + line * V + ids, mask=inside, other=-INF), facts, line)
    left = p
    if n_accepted < K - 1:
        draft = row * positions + n_accepted
        drafted = tl.load(drafts + draft * V + ids, mask=inside, other=-INF)
        left = tl.maximum(p - _probability(drafted, draft_facts, draft), 0.0)
    noise = gumbel(ids, seed, number + _CORRECTION, now + n_accepted)
    # Rounding may leave nothing of two equal distributions; then the target's own is drawn from.
    for side in tl.static_range(2):
        weight = left if side == 0 else p
        score = tl.where(inside & (weight > 0.0), tl.log(weight) + noise, -INF)
        top, index = tl.max(score, 0, return_indices=True)
        spot = (2 * row + side) * count + block
        tl.store(best + spot, top)
        tl.store(ids_at + spot, tl.minimum(block * BLOCK + index, V - 1))
    if is_last(arrived + row, count):
        most, follower = _winner(best, ids_at, 2 * row, count, PARTS)
        _, other = _winner(best, ids_at, 2 * row + 1, count, PARTS)
        follower = tl.where(most == -INF, other, follower).to(tl.int64)
        tl.store(chosen + row, follower)
        tl.store(accepted + row, n_accepted.to(tl.int64))
        for i in tl.static_range(K):
            proposal = tl.full((), -1, tl.int64)
            if i < K - 1:
                proposal = tl.load(proposed + row * positions + i)
            cell = row * K + i
            here = (n_accepted == i) | (i == K - 1)
            tl.store(tokens + cell, tl.where(here, follower, tl.maximum(proposal, 0)))
            tl.store(extras + cell, tl.where(i < n_accepted, 1.0, 0.0))
            tl.store(extras + R * K + cell, tl.where(n_accepted == i, proposal, -1).to(tl.float32))


class FusedSpeculative:
    """Runs `propose` and `step` of `edge_tui.decoders.speculative.Speculative` as kernels.

    Args:
        device: The device of every tensor.
        width: Vocabulary `V`.
        rows: Number of rows `R`.
        num_draft_tokens: Proposals a step.
        dependent: True if kernels get ready while the ones before them end; None where the device can.
    """

    def __init__(
        self,
        device: str,
        width: int,
        rows: int,
        num_draft_tokens: int,
        dependent: bool | None = None,
    ) -> None:
        self.width, self.rows, self.block = width, rows, block_for(width)
        self.num_draft_tokens = num_draft_tokens
        self._blocks: int = triton.cdiv(width, self.block)
        self._shape: dict[str, Any] = {"BLOCK": self.block, "PARTS": triton.next_power_of_2(self._blocks)}
        self._options = launch_options(device, dependent)
        # What comes before the first kernel are torch operations and copies, which are waited for in full.
        self._first = {**self._options, "launch_pdl": False} if self._options["DEPENDENT"] else self._options
        positions = num_draft_tokens + 1

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self._drafts, self._final = empty(rows, num_draft_tokens, width), empty(rows, positions, width)
        self._draft_facts, self._facts = empty(rows, num_draft_tokens, 2), empty(rows, positions, 2)
        lines = rows * max(positions, 2)
        self._peaks, self._weights, self._best = empty(3, lines, self._blocks)
        self._at = empty(lines, self._blocks, dtype=torch.int32)
        self._arrived = torch.zeros(lines, dtype=torch.int32, device=device)
        self._chosen, self._accepted = empty(2, rows, dtype=torch.int64)
        self._tokens = empty(rows, positions, dtype=torch.int64)
        self._extras = empty(len(Speculative.columns), rows, positions)

    def propose(self, out: Output, s: State, p: Params, rng: Rng, at: int) -> Tensor:
        """Computes `edge_tui.decoders.base.Decoder.propose`."""
        logits = out.logits[:, -1]
        logits = logits if logits.stride(-1) == 1 else logits.contiguous()
        _propose[(self._blocks, self.rows)](
            logits,
            logits.stride(0),
            p.table,
            self._drafts,
            self._draft_facts,
            s["proposed"],
            self._peaks,
            self._weights,
            self._best,
            self._at,
            self._arrived,
            rng.key,
            rng.row,
            rng.step,
            self.width,
            self.rows,
            self.num_draft_tokens,
            at,
            list(p).index(TEMPERATURE.name),
            **self._shape,
            **self._first,
        )
        return s["proposed"][:, at]

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`."""
        logits = outs["model"].logits
        logits = logits if logits.stride(-1) == 1 else logits.contiguous()
        positions = logits.shape[1]
        # A step that has nothing to check has fewer positions; the buffers' first part serves it.
        final = self._final.view(-1)[: self.rows * positions * self.width]
        final = final.view(self.rows, positions, self.width)
        tokens = self._tokens.view(-1)[: self.rows * positions].view(self.rows, positions)
        columns = self._extras.view(-1)[: len(self._extras) * self.rows * positions]
        columns = columns.view(len(self._extras), self.rows, positions)
        _read[(self._blocks, positions, self.rows)](
            logits,
            logits.stride(0),
            logits.stride(1),
            p.table,
            final,
            self._facts,
            self._peaks,
            self._weights,
            self._best,
            self._at,
            self._arrived,
            self.width,
            self.rows,
            list(p).index(TEMPERATURE.name),
            **self._shape,
            **self._first,
        )
        _check[(self._blocks, self.rows)](
            final,
            self._facts,
            self._drafts,
            self._draft_facts,
            s["proposed"],
            rng.key,
            rng.row,
            rng.step,
            self._best,
            self._at,
            self._arrived,
            self._chosen,
            self._accepted,
            tokens,
            columns,
            self.width,
            self.rows,
            self.num_draft_tokens,
            K=positions,
            **self._shape,
            **self._options,
        )
        extras = dict(zip(Speculative.columns, columns, strict=True))
        return Step(self._chosen, final, accepted=self._accepted, tokens=tokens, extras=extras)
