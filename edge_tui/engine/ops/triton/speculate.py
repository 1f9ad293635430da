"""Runs speculative decoding as kernels: one proposes a token, two check all proposals.

What `edge_tui.decoders.speculative` keeps as distributions, these keep as logits with their maximum and
normaliser, so that nothing is written twice. Of the two that check, the first prepares the target's
distribution at every position; in the second each program works out for itself how many proposals are taken,
and looks for the token that follows among its part of the corrected distribution.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from edge_tui.decoders.base import Step, names_of
from edge_tui.decoders.core.random import REDRAW, lane_id
from edge_tui.decoders.speculative import Speculative
from edge_tui.decoders.temperature import GREEDY_BELOW, TEMPERATURE
from edge_tui.engine.ops.triton.choose_parts import INF, Launch, Noise, is_last
from edge_tui.engine.ops.triton.launch import after_others
from edge_tui.engine.ops.triton.noise import gumbel, uniform

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_GREEDY_BELOW = tl.constexpr(GREEDY_BELOW)
_LANE = tl.constexpr(lane_id(0))
"""Id whose number decides about a proposal: lane 0."""
_REDRAW = tl.constexpr(REDRAW)


class Lines(NamedTuple):
    """Holds distributions as logits float32 `[lines, V]`, and maximum and normaliser of each `[lines, 2]`."""

    z: Any
    facts: Any


class Parts(NamedTuple):
    """Holds the partial results of a line: maximum, weight, best score and its id; and how many are done."""

    peaks: Any
    weights: Any
    best: Any
    at: Any
    arrived: Any


class Outcome(NamedTuple):
    """Holds the next token and the number of proposals taken `[R]`; tokens and extras of all positions."""

    chosen: Any
    accepted: Any
    tokens: Any
    extras: Any


@triton.jit
def _scaled(logits, ids, V, tau):
    """Returns logits at a temperature, float32; −inf beyond the vocabulary and in place of NaN."""
    x = tl.load(logits + ids, mask=ids < V, other=-INF).to(tl.float32)
    x = tl.where(x == x, x, -INF)
    return tl.div_rn(x, tl.zeros_like(x) + tl.where(tau < _GREEDY_BELOW, 1.0, tau))


@triton.jit
def _leave(z, score, ids, parts, spot):
    """Leaves a program's part: maximum, weight, and the candidate of the best score."""
    peak = tl.max(z, 0)
    top, index = tl.max(score, 0, return_indices=True)
    tl.store(parts.peaks + spot, peak)
    tl.store(parts.weights + spot, tl.sum(tl.where(z == -INF, 0.0, tl.exp(z - peak)), 0))
    tl.store(parts.best + spot, top)
    tl.store(parts.at + spot, tl.max(tl.where(tl.arange(0, ids.shape[0]) == index, ids, 0), 0))


@triton.jit
def _winner(parts, line, count, PARTS: tl.constexpr):
    """Finds the best of all parts of a line, the first of equals: its score and its id."""
    spots = tl.arange(0, PARTS)
    tops = tl.load(parts.best + line * count + spots, mask=spots < count, other=-INF, cache_modifier=".cg")
    top, part = tl.max(tops, 0, return_indices=True)
    return top, tl.load(parts.at + line * count + part, cache_modifier=".cg")


@triton.jit
def _sum_up(parts, lines, token, line, count, V, greedy, PARTS: tl.constexpr):
    """Keeps a line's maximum and normaliser; without a temperature the token alone is left."""
    spots = tl.arange(0, PARTS)
    valid = spots < count
    peak = tl.load(parts.peaks + line * count + spots, mask=valid, other=-INF, cache_modifier=".cg")
    weight = tl.load(parts.weights + line * count + spots, mask=valid, other=0.0, cache_modifier=".cg")
    top = tl.max(peak, 0)
    total = tl.sum(tl.where(peak == -INF, 0.0, weight * tl.exp(peak - top)), 0)
    tl.store(lines.facts + 2 * line, top)
    tl.store(lines.facts + 2 * line + 1, tl.where(greedy, 1.0, total))
    if greedy:
        tl.store(lines.z + line * V + token, top)


@triton.jit(do_not_specialize=["stride", "place_stride", "V", "positions", "at"])
def _read(
    logits,
    stride,
    place_stride,
    temperature,
    noise,
    lines,
    parts,
    proposed,
    V,
    positions,
    at,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Reads the distribution at one position, from position `at` on; with noise, draws a proposal from it."""
    after_others(DEPENDENT)
    block, count = tl.program_id(0), tl.num_programs(0)
    place, row = tl.program_id(1), tl.program_id(2)
    line = row * positions + at + place
    ids = block * BLOCK + tl.arange(0, BLOCK)
    tau = tl.load(temperature + row)
    greedy = tau < _GREEDY_BELOW
    z = _scaled(logits + row * stride + place * place_stride, ids, V, tau)
    tl.store(lines.z + line * V + ids, tl.where(greedy, -INF, z), mask=ids < V)
    score = z
    if noise is not None:  # noqa: SIM102 - decided while it compiles
        if not greedy:
            score = z + gumbel(ids, tl.load(noise.key + row), tl.load(noise.step) + at)
    _leave(z, score, tl.minimum(ids, V - 1), parts, line * count + block)
    if is_last(parts.arrived + line, count):
        _, token = _winner(parts, line, count, PARTS)
        _sum_up(parts, lines, token, line, count, V, greedy, PARTS)
        if proposed is not None:
            tl.store(proposed + line, token.to(tl.int64))


@triton.jit
def _probability(z, lines, line):
    """Computes the probability from logits of a line whose maximum and normaliser are known."""
    top, total = tl.load(lines.facts + 2 * line), tl.load(lines.facts + 2 * line + 1)
    z = tl.where(z == -INF, 0.0, tl.exp(tl.where(z == -INF, 0.0, z - top)))
    return tl.div_rn(z, tl.zeros_like(z) + total)


@triton.jit(do_not_specialize=["V", "positions"])
def _check(
    target,
    drafts,
    proposed,
    noise,
    parts,
    outcome,
    V,
    positions,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Counts the accepted proposals, and chooses what follows them."""
    after_others(DEPENDENT)
    block, count, row = tl.program_id(0), tl.num_programs(0), tl.program_id(1)
    key, now = tl.load(noise.key + row), tl.load(noise.step)
    n_accepted = tl.full((), 0, tl.int32)
    for i in tl.static_range(K - 1):
        token = tl.maximum(tl.load(proposed + row * positions + i), 0)
        line, draft = row * K + i, row * positions + i
        p = _probability(tl.load(target.z + line * V + token), target, line)
        q = _probability(tl.load(drafts.z + draft * V + token), drafts, draft)
        luck = uniform(tl.full((), _LANE, tl.int64), key, now + i)
        n_accepted += tl.where((luck * q < p) & (n_accepted == i), 1, 0)

    ids = block * BLOCK + tl.arange(0, BLOCK)
    inside = ids < V
    line = row * K + n_accepted
    p = _probability(tl.load(target.z + line * V + ids, mask=inside, other=-INF), target, line)
    left = p
    if n_accepted < K - 1:
        draft = row * positions + n_accepted
        drafted = tl.load(drafts.z + draft * V + ids, mask=inside, other=-INF)
        left = tl.maximum(p - _probability(drafted, drafts, draft), 0.0)
    noise = gumbel(ids + _REDRAW, key, now + n_accepted)
    # Rounding may leave nothing of two equal distributions; then the target's own is drawn from.
    for side in tl.static_range(2):
        weight = left if side == 0 else p
        score = tl.where(inside & (weight > 0.0), tl.log(weight) + noise, -INF)
        top, index = tl.max(score, 0, return_indices=True)
        spot = (2 * row + side) * count + block
        tl.store(parts.best + spot, top)
        tl.store(parts.at + spot, tl.minimum(block * BLOCK + index, V - 1))
    if is_last(parts.arrived + row, count):
        most, follower = _winner(parts, 2 * row, count, PARTS)
        _, other = _winner(parts, 2 * row + 1, count, PARTS)
        follower = tl.where(most == -INF, other, follower).to(tl.int64)
        tl.store(outcome.chosen + row, follower)
        tl.store(outcome.accepted + row, n_accepted.to(tl.int64))
        for i in tl.static_range(K):
            proposal = tl.full((), -1, tl.int64)
            if i < K - 1:
                proposal = tl.load(proposed + row * positions + i)
            cell = row * K + i
            here = (n_accepted == i) | (i == K - 1)
            tl.store(outcome.tokens + cell, tl.where(here, follower, tl.maximum(proposal, 0)))
            tl.store(outcome.extras + cell, tl.where(i < n_accepted, 1.0, 0.0))
            rejected = outcome.extras + tl.num_programs(1) * K + cell
            tl.store(rejected, tl.where(n_accepted == i, proposal, -1).to(tl.float32))


class FusedSpeculative(Launch):
    """Runs `propose` and `step` of `edge_tui.decoders.speculative.Speculative` as kernels.

    Args:
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens that follow the proposals.
        num_draft_tokens: Proposals a step.
    """

    def __init__(self, width: int, chosen: Tensor, num_draft_tokens: int) -> None:
        super().__init__(width, chosen)
        self.num_draft_tokens = num_draft_tokens
        rows, positions, empty = self.rows, num_draft_tokens + 1, self.empty
        self._drafts = Lines(empty(rows, num_draft_tokens, width), empty(rows, num_draft_tokens, 2))
        self._target = Lines(empty(rows, positions, width), empty(rows, positions, 2))
        lines = rows * max(positions, 2)
        peaks, weights, best = empty(3, lines, self.blocks)
        at = empty(lines, self.blocks, dtype=torch.int32)
        arrived = torch.zeros(lines, dtype=torch.int32, device=self.device)
        self._parts = Parts(peaks, weights, best, at, arrived)
        self._outcome = Outcome(
            chosen,
            empty(rows, dtype=torch.int64),
            empty(rows, positions, dtype=torch.int64),
            empty(len(Speculative.columns), rows, positions),
        )

    def propose(self, out: Output | None, s: State, p: Params, rng: Rng, at: int) -> Tensor:
        """Computes `edge_tui.decoders.base.Decoder.propose`."""
        assert out is not None, "it has a draft model"
        noise = Noise(rng.key, rng.step)
        self._read(out.logits[:, -1:], p, self._drafts, self.num_draft_tokens, at, noise, s["proposed"])
        return s["proposed"][:, at]

    def _read(
        self,
        logits: Tensor,
        p: Params,
        lines: Lines,
        positions: int,
        at: int = 0,
        noise: Noise | None = None,
        proposed: Tensor | None = None,
    ) -> None:
        """Reads distributions from logits `[R, K, ≥ V]` into the lines of positions from `at` on."""
        logits = logits if logits.stride(-1) == 1 else logits.contiguous()
        _read[(self.blocks, logits.shape[1], self.rows)](
            logits,
            logits.stride(0),
            logits.stride(1),
            p[TEMPERATURE.name],
            noise,
            lines,
            self._parts,
            proposed,
            self.width,
            positions,
            at,
            **self.shape,
            **self.first,
        )

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`."""
        logits = outs["model"].logits
        positions = logits.shape[1]
        # A step that has nothing to check has fewer positions; the buffers' first part serves it.
        shape = self.rows, positions
        target = self._target._replace(z=_first(self._target.z, *shape, self.width))
        chosen, accepted, tokens, extras = self._outcome
        tokens, extras = _first(tokens, *shape), _first(extras, len(extras), *shape)
        self._read(logits, p, target, positions)
        _check[self.grid](
            target,
            self._drafts,
            s["proposed"],
            Noise(rng.key, rng.step),
            self._parts,
            Outcome(chosen, accepted, tokens, extras),
            self.width,
            self.num_draft_tokens,
            K=positions,
            **self.shape,
            **self.options,
        )
        columns = dict(zip(names_of(Speculative.columns), extras, strict=True))
        return Step(chosen, target.z, accepted=accepted, tokens=tokens, extras=columns)


def _first(buffer: Tensor, *shape: int) -> Tensor:
    """Returns the first part of a buffer in a smaller shape."""
    return buffer.view(-1)[: math.prod(shape)].view(shape)
