"""Runs contrastive search's step: penalties as a kernel, and beside the forward what no token waits for.

The candidates of a place are weighed and proposed by the strategy's own operations, on numbers of the rows
and on the winner's logits. Penalties are the kernel that other strategies begin with. The final distribution
and the counts move behind the winner in `finish`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_tui.decoders.base import Step
from edge_tui.decoders.contrastive_search import propose, weigh
from edge_tui.decoders.core.tokens import add_tokens, reorder_tokens
from edge_tui.engine.ops.triton.choose_kernels import Temperature, prepare_kernel
from edge_tui.engine.ops.triton.choose_parts import FusedStep, last_logits, penalties_of
from edge_tui.engine.ops.triton.choose_search import Searches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from edge_tui.decoders.base import Output, Params, State
    from edge_tui.decoders.core.random import Rng


class FusedContrastiveSearch(FusedStep):
    """Runs `edge_tui.decoders.contrastive_search.ContrastiveSearch.step`, with its buffers.

    Args:
        width: Vocabulary `V`.
        chosen: int64 `[R]`, takes the tokens.
        parent: int64 `[R]`, takes the rows that each row continues.
    """

    def __init__(self, width: int, chosen: Tensor, parent: Tensor) -> None:
        super().__init__(width, chosen, 512)
        self._parent = parent
        self._searches = Searches(self, 1, 1)
        self._final = self.empty(self.rows, width)
        self._tokens: State = {}

    def __call__(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Computes the step, but that the final distribution and the counts move in `finish`."""
        candidates = self._searches.candidates
        prepare_kernel[self.grid](
            last_logits(outs["model"]),
            self.raw,
            penalties_of(s, p),
            Temperature(None),
            candidates,
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
        parent, over, extras = weigh(outs["model"], s, p)
        self._parent.copy_(parent)
        self.chosen.copy_(propose(candidates.z.index_select(0, self._parent[:1]), s))
        self._tokens = s
        return Step(self.chosen, self._final, parent=self._parent, done=over, extras=extras)

    def finish(self) -> None:
        """Moves rows behind the winner: the step's `final`, and the counts, which get the new tokens."""
        torch.index_select(self._searches.candidates.z, 0, self._parent, out=self._final)
        reorder_tokens(self._tokens, self._parent)
        add_tokens(self._tokens, self.chosen)
