"""Epsilon sampling (Hewitt et al., arXiv 2210.15191) drops tokens below a fixed probability.

Keeps `p ≥ ε`, and the likeliest token in any case. Default ε = 0.0009, the greatest that the paper suggests;
0 keeps everything. Reference: transformers' `EpsilonLogitsWarper`, which has the parameter by this name.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows


class Epsilon(Filter):
    """Removes tokens below a probability."""

    name = "epsilon"
    title = "epsilon"
    summary = "Draws from tokens of at least probability ε."
    rank = 23
    params = (
        Param(
            "epsilon_cutoff", 9e-4, 0.0, 1.0, "Least probability of a token; 0 keeps all.", 1e-4, neutral=0.0
        ),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks `softmax(z) < min(ε, max softmax(z))`."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares probabilities with that bound."""
        prob = rows.softmax(z)
        return Criterion("p", prob, p["epsilon_cutoff"].minimum(rows.greatest(prob)))
