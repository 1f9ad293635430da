"""DExperts (Liu et al., arXiv 2105.03023) steers a model by an expert and an anti-expert.

`z + α · (z_e − z_a)`, with z the model's logits, z_e the expert's, z_a the amateur's, which is the
anti-expert. Default α = 2, the paper's for detoxification; 0 is neutral. The three vocabularies must be one
map. Where no expert is set, it is the model itself. Reference: closed form. The authors' code first keeps the
base model's nucleus of 0.9; here a cut acts on the result, as `dexperts:top_p`. Penalties act on the model's
logits first, the temperature on the result.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import (
    Criterion,
    Decoder,
    Output,
    Param,
    Params,
    Rng,
    State,
    Tensor,
    difference,
    last_logits,
    of_guidance,
)
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.temperature import TEMPERATURE, Temperature


class Dexperts(Decoder):
    """Adds the difference of two models to the logits of a third, and draws."""

    name = "dexperts"
    title = "DExperts"
    summary = "Steers a model towards an expert and away from an anti-expert (the amateur)."
    rank = 62
    roles = ("model", "expert", "amateur")
    params = (
        Param("dexperts_alpha", 2.0, 0.0, 10.0, "α: higher steers more.", neutral=0.0),
        TEMPERATURE,
    )

    def __init__(self) -> None:
        super().__init__(penalties(), (Temperature(),))

    def logits(self, outs: Mapping[str, Output], s: State, p: Params) -> Tensor:
        """Adds α times the difference of the two."""
        z, expert, amateur = (last_logits(outs[role], s) for role in self.roles)
        return z + p["dexperts_alpha"] * difference(expert, amateur)

    def criterion(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Criterion:
        """Gives what that adds to log-probabilities."""
        expert, amateur = (last_logits(outs[role], s) for role in self.roles[1:])
        return of_guidance(expert, amateur, p["dexperts_alpha"])
