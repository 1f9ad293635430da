"""Tail-free sampling (Bricken, 2019; no paper) cuts where the sorted distribution stops bending.

Sorts the probabilities, best first, adds up `|Δ²p|` as shares of their sum, and keeps one token and one more
for each sum ≤ s; what ties with the last one stays. This is textgen's rule (`TailFreeLogitsWarper`) and the
author's, which puts the edge at the middle one of a difference's three tokens. koboldcpp (`sample_tail_free`)
keeps one token less, but at least one. Default s = 0.95; 1 keeps everything.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows, sort_descending


class TailFree(Filter):
    """Removes the flat tail of the distribution."""

    name = "tfs"
    title = "tail-free"
    summary = "Draws from the tokens before the flat tail of the distribution."
    rank = 26
    params = (Param.share("tfs", 0.95, "Lower cuts the tail earlier; 1 keeps all.", neutral=1.0),)

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks probabilities below that of the token at which the bends reach s; s = 1 masks none."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares probabilities with that of the token at which the bends reach s."""
        prob, share = rows.softmax(z), p["tfs"]
        falling = sort_descending(prob)
        bends = falling.diff().diff().abs()
        edge = falling.gather(-1, rows.reach(bends, share))
        return Criterion("p", prob, edge.where(share < 1, 0.0))
