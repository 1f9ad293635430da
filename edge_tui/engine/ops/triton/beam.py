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

from edge_tui.decoders.base import Step
from edge_tui.decoders.beam import EARLY_STOPPING, LENGTH_PENALTY, Beam
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from edge_tui.engine.ops.triton.beam_kernels import (
    decide_kernel,
    extend_kernel,
    move_kernel,
    scan_kernel,
)
from edge_tui.engine.ops.triton.choose_parts import block_for, indices, launch_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng

_MOST = 128
"""Most continuations that are put in order; with more the reference is no slower."""


class FusedBeam:
    """Runs `edge_tui.decoders.beam.Beam.step` as kernels, with the buffers that pass between them.

    Args:
        device: The device of every tensor.
        width: Vocabulary `V`.
        rows: Number of beams `R`.
        dependent: True if kernels get ready while the ones before them end; None where the device can.
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
        scan_kernel[grid](
            logits,
            logits.stride(0),
            self.raw,
            self._peaks,
            self._weights,
            self.width,
            BLOCK=self.block,
            **self._first,
        )
        extend_kernel[grid](
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
        decide_kernel[grid](
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
        move_kernel[(triton.cdiv(self.width, block),)](
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
