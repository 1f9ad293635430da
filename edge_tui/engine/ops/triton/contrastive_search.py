"""Runs contrastive search's step as three kernels; what no token waits for is done beside the forward.

Penalties come first, by the kernel that other strategies begin with. The second kernel compares the
candidates' hidden states with those of all positions before, and its last program weighs the candidates. The
third finds the likeliest tokens after the winner, from whose greatest logits the first kernel has left a
bound. The final distribution and the counts move behind the winner in `finish`.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
import triton.language as tl

from edge_tui.decoders.base import Step
from edge_tui.decoders.core.tokens import add_tokens, reorder_tokens
from edge_tui.engine.ops.triton.best import bound_of
from edge_tui.engine.ops.triton.choose_kernels import Temperature, prepare_kernel
from edge_tui.engine.ops.triton.choose_parts import (
    INF,
    FusedStep,
    append_best,
    is_last,
    last_logits,
    peak_of,
    penalties_of,
    take_best,
)
from edge_tui.engine.ops.triton.choose_search import Searches
from edge_tui.engine.ops.triton.launch import after_others

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_POSITIONS = 8
"""Positions that a program compares at a time."""
PROGRAMS = 264
"""Most programs of a comparison: two for each multiprocessor of an H200."""


class States(NamedTuple):
    """Holds the newest hidden states `[R, D]`, those of all positions `[≥ length, D]`, and lengths `[R]`.

    With each of the first two goes the distance from one state to the next.
    """

    newest: Any
    newest_stride: Any
    past: Any
    past_stride: Any
    length: Any


class Weighed(NamedTuple):
    """Holds what a weighing reads and writes, of each row.

    Attributes:
        proposed: int64 `[R]`, the candidates; −1 before the first.
        logp: float32 `[R]`, their log-probabilities.
        alpha: float32 `[R]`.
        ends: int64 `[R, E]`, tokens that end a text; row 0 counts.
        parts: float32 `[programs, R]`, the greatest cosine that each program met.
        arrived: int32 `[1]`, programs done.
        parent: int64 `[R]`, takes the winner.
        done: uint8 `[R]`, takes 1 where it ends the text.
        similarity: float32 `[R]`, takes the greatest cosines.
        objective: float32 `[R]`, takes what is maximised.
    """

    proposed: Any
    logp: Any
    alpha: Any
    ends: Any
    parts: Any
    arrived: Any
    parent: Any
    done: Any
    similarity: Any
    objective: Any


@triton.jit
def _weigh(weighed, rows, ends, programs, ROOM: tl.constexpr, PARTS: tl.constexpr, ENDS: tl.constexpr):
    """Takes the candidate of the greatest `(1 − α) · p − α · similarity`, the first of equals."""
    row, part = tl.arange(0, ROOM), tl.arange(0, PARTS)
    inside = row < rows
    there = (part < programs)[:, None] & inside[None, :]
    found = weighed.parts + part[:, None] * rows + row[None, :]
    similarity = tl.max(tl.load(found, mask=there, other=-1.0, cache_modifier=".cg"), 0)
    token = tl.load(weighed.proposed + row, mask=inside, other=0)
    logp = tl.load(weighed.logp + row, mask=inside, other=-INF)
    alpha = tl.load(weighed.alpha + row, mask=inside, other=0.0)
    objective = (1.0 - alpha) * tl.exp(logp) - alpha * similarity
    objective = tl.where(logp == -INF, -INF, objective)
    first = token < 0
    objective = tl.where(first, 0.0, objective)
    _, winner = tl.max(tl.where(inside, objective, -INF), 0, return_indices=True)
    taken = tl.load(weighed.proposed + winner)
    end = tl.arange(0, ENDS)
    is_end = tl.load(weighed.ends + end, mask=end < ends, other=-1) == taken
    over = tl.max((is_end & (end < ends)).to(tl.int32), 0)
    tl.store(weighed.parent + row, (row * 0 + winner).to(tl.int64), mask=inside)
    tl.store(weighed.done + row, (row * 0 + over).to(tl.uint8), mask=inside)
    tl.store(weighed.similarity + row, tl.where(first, float("nan"), similarity), mask=inside)
    tl.store(weighed.objective + row, tl.where(first, float("nan"), objective), mask=inside)


@triton.jit
def _compare_kernel(
    states,
    weighed,
    rows,
    ends,
    D,
    ROOM: tl.constexpr,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    ENDS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Finds the greatest cosine of each row's newest state with those before; the last program weighs."""
    after_others(DEPENDENT)
    program, programs = tl.program_id(0), tl.num_programs(0)
    row, span, columns = tl.arange(0, ROOM), tl.arange(0, SPAN), tl.arange(0, BLOCK)
    inside = row < rows
    before = tl.load(states.length) - 1
    greatest = tl.full((ROOM,), -1.0, tl.float32)
    for start in range(program * SPAN, before, programs * SPAN):
        position = start + span
        products = tl.zeros((SPAN, ROOM), tl.float32)
        mine, theirs = tl.zeros((ROOM,), tl.float32), tl.zeros((SPAN,), tl.float32)
        for first in range(0, D, BLOCK):
            column = first + columns
            within = (column < D)[None, :]
            new_at = states.newest + row[:, None] * states.newest_stride + column[None, :]
            new = tl.load(new_at, mask=inside[:, None] & within, other=0.0).to(tl.float32)
            old_at = states.past + position[:, None].to(tl.int64) * states.past_stride + column[None, :]
            old = tl.load(old_at, mask=(position < before)[:, None] & within, other=0.0).to(tl.float32)
            products += tl.sum(old[:, None, :] * new[None, :, :], 2)
            mine += tl.sum(new * new, 1)
            theirs += tl.sum(old * old, 1)
        cosine = products / (tl.sqrt(mine)[None, :] * tl.sqrt(theirs)[:, None])
        cosine = tl.where((position < before)[:, None] & inside[None, :], cosine, -1.0)
        greatest = tl.maximum(greatest, tl.max(cosine, 0))
    tl.store(weighed.parts + program * rows + row, greatest, mask=inside)
    if is_last(weighed.arrived, programs):
        _weigh(weighed, rows, ends, programs, ROOM, PARTS, ENDS)


class Proposal(NamedTuple):
    """Holds what is proposed: tokens int64 `[R]` twice, log-probabilities `[R]`, and a list on the way there.

    The list has scores and ids `[blocks * R]`; `weights` are the programs' parts of the normaliser
    `[blocks]`, and the last two count the list's entries and the programs done.
    """

    proposed: Any
    chosen: Any
    logp: Any
    scores: Any
    names: Any
    weights: Any
    filled: Any
    arrived: Any


@triton.jit
def _propose_kernel(
    candidates,
    parent,
    proposal,
    V,
    MOST: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """Lists the winner's likeliest tokens; the last program puts them in order and normalises them."""
    after_others(DEPENDENT)
    block, blocks = tl.program_id(0), tl.num_programs(0)
    row = tl.load(parent)
    ids = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(candidates.z + row * V + ids, mask=ids < V, other=-INF)
    peak = peak_of(candidates.peaks, row, blocks, PARTS)
    tl.store(proposal.weights + block, tl.sum(tl.where(x > -INF, tl.exp(x - peak), 0.0), 0))
    valid = (x >= bound_of(candidates.peaks, row, blocks, MOST, PARTS)) & (x > -INF)
    number = tl.minimum(tl.sum(valid.to(tl.int32), 0), MOST)
    x = tl.where(valid, x, -INF)
    append_best(proposal.scores, proposal.names, proposal.filled, x, number, block * BLOCK, BLOCK)
    if is_last(proposal.arrived, blocks):
        parts = tl.arange(0, PARTS)
        weights = tl.load(proposal.weights + parts, mask=parts < blocks, other=0.0, cache_modifier=".cg")
        normaliser = peak + tl.log(tl.sum(weights, 0))
        filled, logp, proposed = proposal.filled, proposal.logp, proposal.proposed
        take_best(proposal.scores, proposal.names, filled, normaliser, logp, proposed, MOST, 0, SLOTS)
        slots = tl.arange(0, SLOTS)
        tokens = tl.load(proposed + slots, mask=slots < MOST, cache_modifier=".cg")
        tl.store(proposal.chosen + slots, tokens, mask=slots < MOST)


class FusedContrastiveSearch(FusedStep):
    """Runs `edge_tui.decoders.contrastive_search.ContrastiveSearch.step`, with its buffers.

    Args:
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens.
        parent: int64 `[R]`, takes the rows that each row continues.
    """

    def __init__(self, width: int, chosen: Tensor, parent: Tensor) -> None:
        super().__init__(width, chosen, 1024)
        rows, integers = self.rows, torch.int32
        self._parent = parent
        self._searches = Searches(self, 1, 1)
        self._final = self.empty(rows, width)
        self._room = triton.next_power_of_2(rows)
        self._parts = self.empty(PROGRAMS, rows)
        self._done = self.empty(rows, dtype=torch.uint8)
        self._similarity, self._objective = self.empty(2, rows)
        counters = torch.zeros(3, 1, dtype=integers, device=self.device)
        self._arrived, *self._counters = counters
        self._list = self.empty(self.blocks * rows), self.empty(self.blocks * rows, dtype=integers)
        self._weights = self.empty(self.blocks)
        self._tokens: State = {}

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes the step, but that the final distribution and the counts move in `finish`."""
        prepare_kernel[self.grid](
            last_logits(outs["model"]),
            self.raw,
            penalties_of(s, p),
            Temperature(None),
            self._searches.candidates,
            None,
            None,
            self._searches.tallies,
            self._searches.histograms,
            self.width,
            CENTRED=False,
            TEMPERED=False,
            HELD=False,
            **self.first,
        )
        self._compare(outs["model"], s, p)
        _propose_kernel[(self.blocks,)](
            self._searches.candidates,
            self._parent,
            Proposal(s["proposed"], self.chosen, s["logp"], *self._list, self._weights, *self._counters),
            self.width,
            MOST=self.rows,
            SLOTS=self._room,
            **self.shape,
            **self.options,
        )
        self._tokens = s
        extras = {"similarity": self._similarity, "objective": self._objective}
        done = self._done.view(torch.bool)
        return Step(self.chosen, self._final, parent=self._parent, done=done, extras=extras)

    def _compare(self, out: Output, s: State, p: Params) -> None:
        """Launches the kernel that compares states and weighs the candidates."""
        assert out.hidden is not None, "the needs name them"
        assert out.past is not None
        assert out.past_length is not None
        newest, past, ends = out.hidden[:, -1, 0], out.past[0], s["eos"]
        states = States(newest, newest.stride(0), past, past.stride(0), out.past_length)
        programs = min(triton.cdiv(len(past), _POSITIONS), PROGRAMS)
        alpha = p["penalty_alpha"][:, 0].contiguous()
        written = self._parent, self._done, self._similarity, self._objective
        _compare_kernel[(programs,)](
            states,
            Weighed(s["proposed"], s["logp"], alpha, ends, self._parts, self._arrived, *written),
            self.rows,
            ends.shape[1],
            past.shape[1],
            ROOM=self._room,
            SPAN=_POSITIONS,
            PARTS=triton.next_power_of_2(PROGRAMS),  # the same for every length
            ENDS=triton.next_power_of_2(max(ends.shape[1], 1)),
            **{**self.options, "BLOCK": max(8192 // (_POSITIONS * self._room), 16)},
        )

    def finish(self) -> None:
        """Moves rows behind the winner: the step's `final`, and the counts, which get the new tokens."""
        torch.index_select(self._searches.candidates.z, 0, self._parent, out=self._final)
        reorder_tokens(self._tokens, self._parent)
        add_tokens(self._tokens, self.chosen)
