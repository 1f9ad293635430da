"""Mirostat 2 (Basu et al., arXiv 2007.14966) steers the surprise of its tokens towards a target.

Drops tokens with `−log₂ p > μ`, but keeps the likeliest; draws; then `μ −= η · (S − τ)`, with S the surprise
of the token in bits. μ begins at 2τ. Defaults τ = 5, η = 0.1; no value is neutral. Reference: llama.cpp,
which takes S from the distribution that was drawn from, as here; the paper's version 1 takes it from the
model's. Where several tokens are the likeliest and nothing else is left, all stay here and one does there. A
token that was forced from outside the kept ones has the surprise that it has under the model. μ is kept as
its distance from 2τ, so a τ that changes while a run goes on moves μ at once.
"""

from __future__ import annotations

from math import inf, log

from edge_tui.decoders.base import (
    Column,
    Criterion,
    Env,
    Filter,
    Param,
    Params,
    Rng,
    State,
    Tensor,
    Token,
    rows,
)


class Mirostat(Filter):
    """Removes tokens more surprising than a bound that learns from those taken."""

    name = "mirostat"
    title = "mirostat"
    summary = "Draws so that tokens are on average as surprising as you say."
    rank = 40
    last = True
    columns = (Column("mu", "Bound of the next token's surprise (bits)."),)
    params = (
        Param("mirostat_tau", 5.0, 0.0, 20.0, "Bits of surprise to keep to; higher is more varied.", 0.1),
        Param("mirostat_eta", 0.1, 0.0, 1.0, "Higher corrects the bound faster.", 0.01),
    )

    def init(self, env: Env) -> State:
        import torch

        drift = torch.zeros(env.rows, 1, device=env.device)
        return {"drift": drift, "mu": drift + 2 * env.values["mirostat_tau"]}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks tokens of more than μ bits."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares the surprise of tokens with μ, or with that of the likeliest."""
        bits = -rows.log_softmax(z) / log(2)
        bound = (2 * p["mirostat_tau"] + s["drift"]).maximum(rows.least(bits))
        return Criterion("bits", bits, bound, is_most=True)

    def observe(self, s: State, p: Params, token: Token) -> None:
        """Moves μ against the error of the token's surprise."""
        tau = p["mirostat_tau"]
        bits = token.final.where(token.final > -inf, token.raw)[:, None] / -log(2)
        s["drift"].sub_(p["mirostat_eta"] * (bits - tau))
        s["mu"].copy_(s["drift"].add(tau, alpha=2))
