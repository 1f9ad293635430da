"""Top-nσ sampling (Tang et al., arXiv 2411.07641) keeps the logits within n standard deviations of the best.

Keeps `z ≥ max z − n · σ(z)`, σ over the candidates that are left, by their number (population). A temperature
changes the numbers, not the set. Default n = 1, as in the paper; 0 keeps everything, as in llama.cpp, which
is the reference (`top_n_sigma`).
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows


class TopNSigma(Filter):
    """Removes logits more than n standard deviations below the best."""

    name = "top_n_sigma"
    title = "top-nσ"
    summary = "Draws from tokens whose logits stand out, at any temperature the same ones."
    rank = 20
    params = (
        Param("top_n_sigma", 1.0, 0.0, 10.0, "Standard deviations below the best; 0 keeps all.", neutral=0.0),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks `z < max z − n · σ`; n = 0 masks none."""
        import torch

        n = p["top_n_sigma"]
        bound = rows.greatest(z) - n * rows.spread(z)
        return z.masked_fill(z < bound.masked_fill(n == 0, -torch.inf), -torch.inf)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Measures in σ how far logits lie below the best one."""
        return Criterion("σ", (rows.greatest(z) - z) / rows.spread(z), p["top_n_sigma"], is_most=True)
