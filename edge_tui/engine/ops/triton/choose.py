"""Runs a strategy's step as one kernel (greedy), two (min-p) or five and more.

Each row of the vocabulary is spread over programs of `BLOCK` candidates. What concerns a whole row (its
maximum, an edge, the winner) passes through small tables in memory: a kernel leaves parts, and every
program of the next one puts them together for itself, which is faster than waiting for one to do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from edge_tui.decoders.base import Step
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION
from edge_tui.decoders.temperature import TEMPERATURE
from edge_tui.engine.ops.triton.choose_kernels import (
    centre_kernel,
    draw_kernel,
    greedy_kernel,
    prepare_kernel,
)
from edge_tui.engine.ops.triton.choose_parts import block_for, indices, launch_options
from edge_tui.engine.ops.triton.choose_search import Searches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng
    from edge_tui.engine.ops.choose_plan import Plan


class FusedChoice:
    """Runs a strategy's step as kernels, with the buffers that pass between them.

    Args:
        plan: What the strategy does.
        device: The device of every tensor.
        width: Vocabulary `V`.
        rows: Number of rows `R`.
        block: Candidates a program; chosen by `V` if 0.
        dependent: True if kernels get ready while the ones before them end; None where the device can.
        chosen: int64 `[R]`, takes the tokens; a buffer of its own if None.
    """

    def __init__(
        self,
        plan: Plan,
        device: str,
        width: int,
        rows: int,
        block: int = 0,
        dependent: bool | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        self.plan = plan
        self.width, self.rows = width, rows
        self.block = block or block_for(width, 512 if plan.draws else 1024)
        blocks = triton.cdiv(width, self.block)
        self._grid = (blocks, rows)
        self._options = launch_options(device, dependent)
        # What comes before the first kernel are torch operations and copies, which are waited for in full.
        self._first = {**self._options, "launch_pdl": False} if self._options["DEPENDENT"] else self._options
        self._shape: dict[str, Any] = {"BLOCK": self.block, "PARTS": triton.next_power_of_2(blocks)}
        self._centred = bool(plan.cuts) and plan.cuts[0].edge.key == "surprise"
        """True if the first kernel sees all that the centre is made of."""
        searches = sum(cut.edge.weight is not None for cut in plan.cuts)

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=device)

        self.raw = empty(rows, width)
        """float32 `[R, V]`, a copy of the logits that the last step read."""
        self._final = empty(rows, width)
        self._peaks = empty(rows, blocks)
        self._sums = empty(rows, 2, blocks)
        self._edges = empty(max(len(plan.cuts), 1), rows)
        self._searches = Searches(max(searches, 1), device, width, rows, blocks)
        self._best = empty(rows, blocks)
        self._at = empty(rows, blocks, dtype=torch.int32)
        self._chosen = empty(rows, dtype=torch.int64) if chosen is None else chosen
        self._arrived = torch.zeros(rows, dtype=torch.int32, device=device)

    def finish(self) -> None:
        """Does nothing: a step leaves nothing behind."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes `edge_tui.decoders.base.Decoder.step`."""
        logits = outs["model"].logits[:, -1]
        if logits.stride(-1) != 1:
            logits = logits.contiguous()
        place = {name: index for index, name in enumerate(p)}
        if self.plan.draws:
            self._prepare(logits, s, p, place)
            self._draw(logits, s, p, place, rng)
        else:
            greedy_kernel[self._grid](
                logits,
                logits.stride(0),
                self.raw,
                s["prompt_counts"],
                s["output_counts"],
                p.table,
                self._final,
                self._best,
                self._at,
                self._arrived,
                self._chosen,
                self.width,
                self.rows,
                *indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
                **self._shape,
                **self._first,
            )
        return Step(self._chosen, self._final)

    def _prepare(self, logits: Tensor, s: State, p: Params, place: Mapping[str, int]) -> None:
        ratio = next((i for i, cut in enumerate(self.plan.cuts) if cut.edge.weight is None), -1)
        prepare_kernel[self._grid](
            logits,
            logits.stride(0),
            self.raw,
            s["prompt_counts"],
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._sums,
            self._edges,
            self._searches.tallies,
            self._searches.histograms,
            self.width,
            self.rows,
            *indices(place, REPETITION.name, PRESENCE.name, FREQUENCY.name),
            *indices(place, TEMPERATURE.name, self.plan.order, self.plan.switch),
            place[self.plan.cuts[ratio].edge.param] if ratio >= 0 else -1,
            max(ratio, 0),
            BLOCK=self.block,
            CENTRED=self._centred,
            **self._first,
        )

    def _draw(self, logits: Tensor, s: State, p: Params, place: Mapping[str, int], rng: Rng) -> None:
        search, edge_slot = -1, -1
        """The search whose outcome the next kernel is to work out, and the slot of its edge."""
        *_, last = self.plan.cuts
        for slot, cut in enumerate(self.plan.cuts):
            if cut.edge.weight is None:
                continue
            if cut.edge.key == "surprise" and not self._centred:
                centre_kernel[self._grid](
                    self._final,
                    self._peaks,
                    self._sums,
                    self._edges,
                    self._searches.tallies[search],
                    self._searches.keys,
                    self._searches.weights,
                    self.width,
                    self.rows,
                    **self._shape,
                    EARLIER=slot,
                    EDGE_SLOT=edge_slot,
                    **self._options,
                )
                edge_slot = -1
            search += 1
            self._searches.find(
                search,
                cut,
                place[cut.edge.param],
                self._final,
                self._peaks,
                self._sums,
                self._edges,
                p.table,
                slot,
                edge_slot,
                **self._shape,
                **self._options,
            )
            edge_slot = slot
        draw_kernel[self._grid](
            logits,
            logits.stride(0),
            s["output_counts"],
            p.table,
            self._final,
            self._peaks,
            self._searches.centres,
            self._edges,
            self._searches.tallies[search],
            self._searches.keys,
            self._searches.weights,
            rng.key,
            rng.row,
            rng.step,
            self._best,
            self._at,
            self._arrived,
            self._chosen,
            self.width,
            self.rows,
            *indices(place, TEMPERATURE.name, self.plan.order, self.plan.switch),
            **self._shape,
            SURPRISE=last.edge.key == "surprise",
            EARLIER=len(self.plan.cuts),
            EDGE_SLOT=edge_slot,
            **self._options,
        )
