"""Top-p or nucleus sampling (Holtzman et al., arXiv 1904.09751) draws from the smallest set of mass p.

Keeps the shortest prefix of the tokens sorted by probability with `Σ p_i ≥ p`, at least one token, as
transformers' `TopPLogitsWarper` does (which breaks ties at the edge by sort order; here they stay together).
Default 0.9; 1 keeps everything, 0 is greedy.
"""

from __future__ import annotations

from edge_tui.decoders.base import Edge, Filter, Param, Params, Rng, State, Tensor, cutoff, rows


class TopP(Filter):
    """Removes the tokens outside the nucleus."""

    name = "top_p"
    title = "top-p"
    summary = "Draws from the smallest set of tokens that holds probability p."
    rank = 4
    openai = True
    params = (
        Param.share(
            "top_p",
            0.9,
            "Probability that the kept tokens hold together; 1 keeps all.",
            neutral=1.0,
            greedy=0.0,
        ),
    )
    edge = Edge("depth", "mass", "top_p")

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks logits below the one at which the likeliest reach the mass p."""
        import torch

        mass = p["top_p"]
        below = rows.greatest(z) - z
        edge = cutoff(below, rows.softmax(z), mass)
        return z.masked_fill((below > edge) & (mass < 1), -torch.inf)
