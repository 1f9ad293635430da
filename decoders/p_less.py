"""P-less sampling (Tan et al., arXiv 2509.23234) drops tokens less likely than two draws are to agree.

Keeps `p ≥ Σ p²`. It has no parameter, so no default and no neutral value. Reference: the closed form. Σ p² is
at most max p; where rounding lifts it above, the likeliest tokens stay.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Params, Rng, State, Tensor, rows


class PLess(Filter):
    """Removes tokens below the probability that two draws agree."""

    name = "p_less"
    title = "p-less"
    summary = "Draws from tokens likelier than two draws are to agree; nothing to set."
    rank = 25

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks `softmax(z) < min(Σ softmax(z)², max softmax(z))`."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares probabilities with that bound."""
        prob = rows.softmax(z)
        return Criterion("p", prob, rows.total(prob.square()).minimum(rows.greatest(prob)))
