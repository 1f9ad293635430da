"""Top-a sampling (BlinkDL's RWKV-LM, 2022; no paper) cuts deeper the surer the model is.

Keeps `p ≥ a · (max p)²`. Default a = 0.2, its author's; 0 keeps everything. References: textgen's
`TopALogitsWarper` and koboldcpp's `sample_top_a`, which agree.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows


class TopA(Filter):
    """Removes tokens below a share of the square of the best one's probability."""

    name = "top_a"
    title = "top-a"
    summary = "Draws from few tokens where the model is sure, from many where it is not."
    rank = 22
    params = (Param.share("top_a", 0.2, "Higher keeps fewer tokens; 0 keeps all.", neutral=0.0),)

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks `softmax(z) < a · (max softmax(z))²`."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares probabilities with that bound."""
        prob = rows.softmax(z)
        return Criterion("p", prob, p["top_a"] * rows.greatest(prob).square())
