"""Runs a strategy's step as one kernel (greedy), two (min-p) or five and more.

Links that the kernels do not know, and strategies that make one distribution of several, run as torch
operations between the passes of a plan and its draw.

Each row of the vocabulary is spread over programs of `BLOCK` candidates. What concerns a whole row (its
maximum, an edge, the winner) passes through small tables in memory: a kernel leaves parts, and every
program of the next one puts them together for itself, which is faster than waiting for one to do it.

What a strategy learns from the token is no part of the call: `finish` computes it beside the next forward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_tui.decoders.base import Step
from edge_tui.decoders.core.step_log import OWN, UNKNOWN, active
from edge_tui.engine.ops.choose_plan import MAIN, Links, Logits
from edge_tui.engine.ops.triton import choose_parts
from edge_tui.engine.ops.triton.choose_kernels import (
    Temperature,
    centre_kernel,
    draw_kernel,
    greedy_kernel,
    prepare_kernel,
)
from edge_tui.engine.ops.triton.choose_parts import FusedStep, Noise, last_logits, penalties_of
from edge_tui.engine.ops.triton.choose_search import Searches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Decoder, Output, Params, State
    from edge_tui.decoders.core.random import Rng
    from edge_tui.engine.ops.choose_plan import Plan


class FusedChoice(FusedStep):
    """Runs a strategy's step as kernels, with the buffers that pass between them.

    Args:
        plan: The strategy's step.
        decoder: The strategy.
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens.
    """

    def __init__(self, plan: Plan, decoder: Decoder, width: int, chosen: Tensor) -> None:
        super().__init__(width, chosen, 512 if plan.draws else 1024)
        self._plan, self._decoder = plan, decoder
        self._centred = bool(plan.cuts) and plan.cuts[0].edge.key == "surprise"
        """True if the last pass sees all that the centre is made of."""
        count = sum(cut.edge.weight is not None for cut in plan.cuts)
        self._searches = Searches(self, max(count, 1), max(len(plan.cuts), 1))
        self._histograms = self._searches.histograms if count else 0
        self._final = self._searches.candidates.z
        self._winner = self.winner()
        self._removing = self.empty(self.rows, width, dtype=torch.int8) if plan.draws else None
        self._numbers = torch.tensor(plan.numbers, dtype=torch.int32, device=self.device)
        parts = plan.parts
        self._absent = UNKNOWN if any(isinstance(part, Links) for part in parts) else OWN if parts else 0
        """Stands for candidates that are gone before the draw; of `UNKNOWN` the step's log tells more."""
        histories = decoder.before.history, decoder.after.history, decoder.needs.history
        self._takes = decoder.learns or any(histories)
        """True if there is more to learn from the token than its count, which the last kernel raises."""
        self._learns_from: tuple[State, Params, Rng] | None = None

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        logits = last_logits(outs[MAIN])
        output = None if self._takes else s["output_counts"]
        self._learns_from = (s, p, rng)
        if self._plan.draws:
            names = self._plan.early, self._plan.late, self._plan.order, self._plan.switch
            temperature = Temperature(*(None if name is None else p[name] for name in names))
            given, source = self._run_passes(outs, s, p, rng, logits, temperature)
            self._draw(given, source, output, temperature, rng, self._search(p))
        else:
            greedy_kernel[self.grid](
                logits,
                self.raw,
                penalties_of(s, p),
                output,
                self._final,
                self._winner,
                self.width,
                **self.shape,
                **self.first,
            )
        return Step(self.chosen, self._final, margin=self._winner.margin, removing_stage=self._removing)

    def finish(self) -> None:
        """Lets the strategy learn the token: counts, the last tokens, and what its stages observe."""
        if self._takes and self._learns_from is not None:
            self._decoder.take(self.chosen, self._final, self.raw, *self._learns_from)

    def _run_passes(
        self,
        outs: Mapping[str, Output],
        s: State,
        p: Params,
        rng: Rng,
        logits: choose_parts.Logits,
        temperature: Temperature,
    ) -> tuple[choose_parts.Logits, Tensor | None]:
        """Runs what comes before the cuts.

        Returns:
            The logits of whose best a row without candidates makes its choice, and what torch operations have
            made of the candidates since the last kernel.
        """
        z, given, source = self._final, logits, None
        decided = False
        for number, each in enumerate(self._plan.passes):
            is_last = number == len(self._plan.passes) - 1
            read = logits if number == 0 else choose_parts.Logits(z if source is None else source, self.width)
            self._prepare(
                read,
                self.raw if number == 0 else None,
                penalties_of(s, p) if each.penalties else None,
                temperature,
                p,
                is_last=is_last,
                TEMPERED=each.temperature,
                HELD=decided,
                **(self.options if number and source is None else self.first),
            )
            decided |= each.temperature
            source = None
            for part in each.parts:
                source = part.run(z if source is None else source, outs, s, p, rng).contiguous()
                if isinstance(part, Logits):
                    given = choose_parts.Logits(source, self.width)
                    if self._absent == UNKNOWN and (log := active()) is not None:
                        log.add(OWN, source)
        return given, source

    def _prepare(
        self,
        logits: choose_parts.Logits,
        raw: Tensor | None,
        penalties: choose_parts.Penalties | None,
        temperature: Temperature,
        p: Params,
        *,
        is_last: bool,
        **options: object,
    ) -> None:
        """Launches the kernel of penalties and temperature, the last one with what the cuts begin with."""
        searches = self._searches
        ratio = edge = None
        for slot, cut in enumerate(self._plan.cuts if is_last else ()):
            if cut.edge.weight is None:
                ratio, edge = p[cut.edge.param], searches.candidates.edges[slot]
        prepare_kernel[self.grid](
            logits,
            raw,
            penalties,
            temperature,
            searches.candidates,
            ratio,
            edge,
            searches.tallies,
            self._histograms if is_last else 0,
            self.width,
            CENTRED=self._centred and is_last,
            **options,
        )

    def _search(self, p: Params) -> int:
        """Runs all searches; returns the slot of the last one's edge, which is still to be worked out."""
        search, edge_slot = -1, -1
        for slot, cut in enumerate(self._plan.cuts):
            if cut.edge.weight is None:
                continue
            if cut.edge.key == "surprise" and not self._centred:
                centre_kernel[self.grid](
                    self._searches.candidates,
                    self._searches.found(search),
                    self.width,
                    EARLIER=slot,
                    EDGE_SLOT=edge_slot,
                    **self.shape,
                    **self.options,
                )
                edge_slot = -1
            search += 1
            self._searches.find(search, cut, p[cut.edge.param], slot, edge_slot)
            edge_slot = slot
        return edge_slot

    def _draw(
        self,
        logits: choose_parts.Logits,
        source: Tensor | None,
        output: Tensor | None,
        temperature: Temperature,
        rng: Rng,
        edge_slot: int,
    ) -> None:
        """Launches the kernel that cuts at the edges and takes the best score."""
        cuts = self._plan.cuts
        draw_kernel[self.grid](
            logits,
            source,
            output,
            temperature,
            self._searches.candidates,
            self._searches.found(-1),
            Noise(rng.key, rng.step),
            self._winner,
            self._removing,
            self._numbers,
            self.width,
            SURPRISE=bool(cuts) and cuts[-1].edge.key == "surprise",
            EARLIER=len(cuts),
            EDGE_SLOT=edge_slot,
            ABSENT=self._absent,
            **self.shape,
            **(self.options if source is None else self.first),
        )
