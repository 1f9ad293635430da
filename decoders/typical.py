"""Locally typical sampling (Meister et al., arXiv 2202.00666) draws tokens near the expected surprise.

Sorts tokens by `|−log p − H|`, `H` the entropy, and keeps the shortest prefix of mass ≥ τ, as transformers'
`TypicalLogitsWarper` does; so the likeliest token may go. Default τ = 0.95; 1 keeps everything.
"""

from __future__ import annotations

from edge_tui.decoders.base import Edge, Filter, Param, Params, Rng, State, Tensor, cutoff, rows


class Typical(Filter):
    """Removes tokens whose surprise is far from the entropy."""

    name = "typical"
    title = "typical"
    summary = "Draws from tokens about as surprising as the model expects to be."
    rank = 6
    params = (
        Param.share(
            "typical_p",
            0.95,
            "Probability that the kept tokens hold together; 1 keeps all.",
            low_open=True,
            neutral=1.0,
            label="typical p",
        ),
    )
    edge = Edge("surprise", "mass", "typical_p")

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks tokens further from the entropy than the one at which the nearest reach the mass."""
        import torch

        tau = p["typical_p"]
        logp = rows.log_softmax(z)
        prob = logp.exp()
        distance = (-logp - rows.entropy(prob)).abs()
        edge = cutoff(distance, prob, tau)
        return z.masked_fill((distance > edge) & (tau < 1), -torch.inf)
