"""Top-k sampling (Fan, Lewis & Dauphin, arXiv 1805.04833) draws from the k likeliest tokens.

Keeps `z ≥ z₍ₖ₎`, the k-th largest logit; what ties with it stays, as in transformers' `TopKLogitsWarper`.
Default k = 50, as there. 0, or more than the vocabulary, keeps everything.
"""

from __future__ import annotations

from edge_tui.decoders.base import Edge, Filter, Param, Params, Rng, State, Tensor, cutoff, rows


class TopK(Filter):
    """Removes all but the k likeliest tokens."""

    name = "top_k"
    title = "top-k"
    summary = "Draws from the k likeliest tokens."
    rank = 3
    params = (
        Param(
            "top_k",
            default=50,
            low=0,
            high=1000,
            step=1,
            integer=True,
            neutral=0,
            help="Number of the likeliest tokens that stay; 0 keeps all.",
        ),
    )
    edge = Edge("depth", "count", "top_k")

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks logits below the k-th greatest; ties with it stay, and k = 0 masks none."""
        import torch

        k = p["top_k"]
        below = rows.greatest(z) - z
        kth = cutoff(below, (z > -torch.inf).float(), k)
        return z.masked_fill((below > kth) & (k > 0), -torch.inf)
