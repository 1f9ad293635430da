"""Runs a strategy's step as one kernel (greedy), two (min-p) or five and more.

Filters without an edge, and strategies that make one distribution of several, run as torch operations between
the first kernel and the last.

Each row of the vocabulary is spread over programs of `BLOCK` candidates. What concerns a whole row (its
maximum, an edge, the winner) passes through small tables in memory: a kernel leaves parts, and every
program of the next one puts them together for itself, which is faster than waiting for one to do it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from edge_tui.decoders.base import Step
from edge_tui.decoders.core.step_log import OWN, UNKNOWN
from edge_tui.decoders.temperature import GREEDY_BELOW, TEMPERATURE
from edge_tui.engine.ops.triton.choose_kernels import (
    Temperature,
    centre_kernel,
    draw_kernel,
    greedy_kernel,
    prepare_kernel,
)
from edge_tui.engine.ops.triton.choose_parts import FusedStep, Logits, Noise, last_logits, penalties_of
from edge_tui.engine.ops.triton.choose_search import Searches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng
    from edge_tui.engine.ops.choose_plan import Plan


class FusedChoice(FusedStep):
    """Runs a strategy's step as kernels, with the buffers that pass between them.

    Args:
        plan: The strategy's step.
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens.
    """

    def __init__(self, plan: Plan, width: int, chosen: Tensor) -> None:
        super().__init__(width, chosen, 512 if plan.draws else 1024)
        self._plan = plan
        self._centred = bool(plan.cuts) and plan.cuts[0].edge.key == "surprise"
        """True if the first kernel sees all that the centre is made of."""
        count = sum(cut.edge.weight is not None for cut in plan.cuts)
        self._searches = Searches(self, max(count, 1), max(len(plan.cuts), 1))
        self._final = self._searches.candidates.z
        self._winner = self.winner()
        self._removing = self.empty(self.rows, width, dtype=torch.int8) if plan.draws else None
        self._absent = 0  # the penalties' link
        if plan.combines is not None:
            self._absent = OWN
        elif plan.middle is not None:
            self._absent = UNKNOWN  # the step's log tells it
        self._after = torch.ones(self.rows, device=self.device)
        """An order that puts the temperature after what is between the kernels."""

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        logits = last_logits(outs["model"])
        if self._plan.draws:
            names = self._plan.order, self._plan.switch
            order, switch = (None if name is None else p[name] for name in names)
            order = self._after if self._plan.combines is not None else order
            temperature = Temperature(p[TEMPERATURE.name], order, switch)
            self._prepare(logits, temperature, s, p)
            self._run_middle(outs, s, p, rng)
            edge_slot = self._search(p)
            self._draw(logits, temperature, s, rng, edge_slot)
        else:
            greedy_kernel[self.grid](
                logits,
                self.raw,
                penalties_of(s, p),
                self._final,
                self._winner,
                self.width,
                **self.shape,
                **self.first,
            )
        return Step(self.chosen, self._final, margin=self._winner.margin, removing_stage=self._removing)

    def _prepare(self, logits: Logits, temperature: Temperature, s: State, p: Params) -> None:
        """Launches the kernel of penalties, temperature and the cut by a ratio."""
        searches = self._searches
        ratios = [(cut, slot) for slot, cut in enumerate(self._plan.cuts) if cut.edge.weight is None]
        ratio = edge = None
        for cut, slot in ratios:
            ratio, edge = p[cut.edge.param], searches.candidates.edges[slot]
        prepare_kernel[self.grid](
            logits,
            self.raw,
            penalties_of(s, p),
            temperature,
            searches.candidates,
            ratio,
            edge,
            searches.tallies,
            searches.histograms,
            self.width,
            CENTRED=self._centred,
            **self.first,
        )

    def _run_middle(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> None:
        """Runs what is torch operations; filters where the temperature has not left one candidate."""
        z, tau = self._searches.candidates.z, p[TEMPERATURE.name]
        if (decoder := self._plan.combines) is not None:
            penalised = replace(outs["model"], logits=z[:, None])
            z.copy_(decoder.logits({**outs, "model": penalised}, s, p))
        if (middle := self._plan.middle) is None:
            return
        acts = tau >= GREEDY_BELOW
        if self._plan.order is not None:  # 1 puts the temperature behind the filters
            acts = tau + p[self._plan.order] >= GREEDY_BELOW
        torch.where(acts, middle.chain.apply_links(z, p, s, rng, middle.first, middle.last), z, out=z)

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

    def _draw(self, logits: Logits, temperature: Temperature, s: State, rng: Rng, edge_slot: int) -> None:
        """Launches the kernel that cuts at the edges and takes the best score."""
        cuts = self._plan.cuts
        draw_kernel[self.grid](
            logits,
            s["output_counts"],
            temperature,
            self._searches.candidates,
            self._searches.found(-1),
            Noise(rng.key, rng.step),
            self._winner,
            self._removing,
            self.width,
            SURPRISE=bool(cuts) and cuts[-1].edge.key == "surprise",
            EARLIER=len(cuts),
            EDGE_SLOT=edge_slot,
            LATE=self._plan.late_temperature,
            ABSENT=self._absent,
            **self.shape,
            **(self.options if self._plan.is_one_chain else self.first),
        )
