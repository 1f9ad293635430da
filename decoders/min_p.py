"""Min-p sampling (Nguyen et al., arXiv 2407.01082) drops tokens much less likely than the best.

Keeps `p ≥ m · max p`, as transformers' `MinPLogitsWarper` does. Default m = 0.05; 0 keeps everything.
"Min-p, Max Exaggeration" (Schaeffer et al., arXiv 2506.13681) finds samplers about equal at equal tuning.
"""

from __future__ import annotations

from edge_tui.decoders.base import Edge, Filter, Param, Params, Rng, State, Tensor, rows


class MinP(Filter):
    """Removes tokens below a share of the best one's probability."""

    name = "min_p"
    title = "min-p"
    summary = "Draws from tokens at least m times as likely as the best."
    rank = 5
    params = (
        Param.share(
            "min_p",
            0.05,
            "Least probability of a kept token, relative to the best; 0 keeps all.",
            neutral=0.0,
        ),
    )
    edge = Edge("depth", None, "min_p")

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks `softmax(z) < min_p · max softmax(z)`."""
        import torch

        prob = rows.softmax(z)
        return z.masked_fill(prob < p["min_p"] * rows.greatest(prob), -torch.inf)
