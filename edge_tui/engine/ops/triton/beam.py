"""Runs beam search's step as four kernels.

The first leaves what each row's normaliser is made of. The second makes penalised log-probabilities, and
leaves each program's best continuation. From these every program of the third works out a bound that no less
of them reach than are wanted, and lists what else does; the one that comes last puts the few in order and
decides which hypotheses finish and which live on. The fourth moves rows behind their new parents; a forward
need not wait for it.
Equal continuations are ordered by row and id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton

from edge_tui.decoders.base import Step, names_of
from edge_tui.decoders.beam import EARLY_STOPPING, LENGTH_PENALTY, Beam
from edge_tui.engine.ops.triton.beam_kernels import (
    Continuations,
    Hypotheses,
    Outcome,
    decide_kernel,
    extend_kernel,
    move_kernel,
    scan_kernel,
)
from edge_tui.engine.ops.triton.choose_parts import FusedStep, last_logits, penalties_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_MOST = 128
"""Most continuations that are put in order; with more the reference is no slower."""


class FusedBeam(FusedStep):
    """Runs `edge_tui.decoders.beam.Beam.step` as kernels, with the buffers that pass between them.

    Args:
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens.
        parent: int64 `[R]`, takes the rows that each row continues.
    """

    def __init__(self, width: int, chosen: Tensor, parent: Tensor) -> None:
        super().__init__(width, chosen)
        rows, empty = self.rows, self.empty
        self._padded_rows: int = triton.next_power_of_2(rows)
        self._logp, self._final = (empty(rows, width) for _ in range(2))
        self._peaks, self._weights, self._tops = empty(3, rows, self.blocks)
        self._listed = Continuations(
            empty(rows, width),
            empty(rows, width, dtype=torch.int32),
            empty(_MOST),
            empty(_MOST, dtype=torch.int32),
            *torch.zeros(2, 1, dtype=torch.int32, device=self.device),
        )
        self._merged = empty(2 * rows)
        self._over = empty(rows, dtype=torch.bool)
        extras = empty(len(Beam.columns), rows)
        self._outcome = Outcome(chosen, parent, self._over.view(torch.int8), extras)
        self._counts: tuple[Tensor, ...] = ()
        """Of the prompt and of the output, int32 `[R, V]`, if rows have still to be moved."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`, but that rows move in `finish`."""
        ends = s["eos"].shape[-1]
        most_listed = min(max(2, 1 + ends) * self.rows, self.rows * self.width)
        if most_listed > _MOST:
            self.raw.copy_(outs["model"].logits[:, -1])
            self._counts = ()
            return Beam().step(outs, s, p, rng)
        logits, penalties = last_logits(outs["model"]), penalties_of(s, p)
        tops: int = triton.next_power_of_2(self.blocks * self.rows)
        count = max(triton.next_power_of_2(most_listed), self._padded_rows)
        scan_kernel[self.grid](logits, self.raw, self._peaks, self._weights, self.width, **self.first)
        extend_kernel[self.grid](
            logits,
            penalties,
            s["score"],
            self._peaks,
            self._weights,
            self._logp,
            self._tops,
            self.width,
            **self.shape,
            **self.options,
        )
        state = {**s, "improvable": s["improvable"].view(torch.int8)}
        decide_kernel[self.grid](
            self._logp,
            self._tops,
            self._listed,
            self._merged,
            p[EARLY_STOPPING.name],
            p[LENGTH_PENALTY.name],
            s["eos"] if ends else s["length"],
            Hypotheses(*(state[name] for name in Hypotheses._fields)),
            self._outcome,
            self.width,
            most_listed,
            ends,
            TOPS=tops,
            GROUPS=min(tops, max(64, 2 * count)),
            COUNT=count,
            ROWS=self._padded_rows,
            **self.options,
        )
        self._counts = penalties.prompt, penalties.output
        chosen, parent, _, extras = self._outcome
        columns = dict(zip(names_of(Beam.columns), extras, strict=True))
        return Step(chosen, self._final, parent=parent, done=self._over, extras=columns)

    def finish(self) -> None:
        """Moves rows: the step's `final`, and counts in its state."""
        if not self._counts:
            return
        block = min(max(2048 // self._padded_rows, 32), 512)
        move_kernel[(triton.cdiv(self.width, block),)](
            self._logp,
            self._final,
            self._counts,
            self._outcome,
            self.width,
            self.rows,
            ROWS=self._padded_rows,
            **{**self.first, "BLOCK": block},
        )
