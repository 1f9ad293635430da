"""Min-p sampling (Nguyen et al., arXiv 2407.01082) drops tokens much less likely than the best.

Keeps `p ≥ m · max p`, as transformers' `MinPLogitsWarper` does. Default m = 0.05; 0 keeps everything.
"""

from __future__ import annotations

from edge_tui.decoders.base import Edge, Filter, Param, Params, Rng, State, Tensor


class MinP(Filter):
    """Removes tokens below a share of the best one's probability."""

    name = "min_p"
    title = "min-p"
    summary = "Draws from tokens at least m times as likely as the best."
    rank = 5
    traceable = True
    params = (
        Param(
            "min_p",
            default=0.05,
            low=0.0,
            high=1.0,
            step=0.01,
            neutral=0.0,
            help="Least probability of a kept token, relative to the best; 0 keeps all.",
        ),
    )
    edge = Edge("depth", None, "min_p")

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        import torch

        prob = z.softmax(-1)
        return z.masked_fill(prob < p["min_p"] * prob.amax(-1, keepdim=True), -torch.inf)
