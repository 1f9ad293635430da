"""Eta sampling (Hewitt et al., arXiv 2210.15191) drops tokens below a bound that falls with the entropy.

Keeps `p ≥ min(ε, √ε · e^−H)`, `H` the entropy in nats, and the likeliest token in any case. Default ε =
0.002, amid the paper's 0.0003 to 0.004; 0 keeps everything. Reference: transformers' `EtaLogitsWarper`, which
has the parameter by this name.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows


class Eta(Filter):
    """Removes tokens below a probability that depends on the entropy."""

    name = "eta"
    title = "eta"
    summary = "Draws from tokens above a bound that falls as the model grows unsure."
    rank = 24
    params = (
        Param("eta_cutoff", 2e-3, 0.0, 1.0, "Higher keeps fewer tokens; 0 keeps all.", 1e-4, neutral=0.0),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks `softmax(z) < min(ε, √ε · e^−H, max softmax(z))`."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares probabilities with that bound."""
        prob, cut = rows.softmax(z), p["eta_cutoff"]
        bound = cut.minimum(cut.sqrt() * (-rows.entropy(prob)).exp())
        return Criterion("p", prob, bound.minimum(rows.greatest(prob)))
