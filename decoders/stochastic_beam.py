"""Stochastic beam search draws B different answers, as sampling would, but none twice.

Kool, van Hoof & Welling (arXiv 1903.06059). If every answer had its log-probability plus Gumbel noise as its
score, the B greatest would be a sample without replacement. The search finds them from the beginning
on: the score `G` of a beginning is the greatest among its answers. It is known before they are: the
continuations of a beam get `φ + noise`, `φ = Σ log p`, and these are moved so that the greatest equals the
beam's own G (a Gumbel given its maximum, appendix B.3),

    G = T − max(0, v) − log(1 + e^−|v|),   v = T − g + log(1 − e^(g − max g)),

with `T` the beam's own G and `g = φ + noise`.

The B greatest live on, and those that end are kept as they are; the search ends when no live one can reach
the B best of these. `p` is the distribution after all stages (`stochastic_beam:top_p`); the noise of a
continuation is its own, by beam and token. The best answer is listed first. The first beam's score is 0, as
in the paper, so the best answer always scores 0 and the others by how much luck they lacked. Where stages
leave fewer than B answers, as temperature 0 does, there are fewer.

One beam is sampling, token for token at the same seed. Reference: all sequences of toy models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edge_tui.decoders.base import (
    Column,
    Env,
    Output,
    Params,
    Rng,
    State,
    Step,
    Tensor,
    best,
    noise_of_hypotheses,
    rows,
)
from edge_tui.decoders.beam import NUM_BEAMS, Beam, Continuations, continuation_count
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.temperature import Temperature


class StochasticBeam(Beam):
    """Searches with B rows whose scores hold their luck.

    Records what beam search does, with G as `score`, and `logp`: `Σ log p` of the hypothesis.
    """

    name = "stochastic_beam"
    title = "stochastic beam"
    summary = "Draws B different answers, as sampling would, but none twice."
    rank = 63
    columns = (
        Column("score", "G of the hypothesis that ends in this token: Σ log p and its luck.", role="sum"),
        *Beam.columns[1:],
        Column("log_sum", "Σ log p of that hypothesis (nats)."),
    )

    def __init__(self) -> None:
        super(Beam, self).__init__(penalties(), (Temperature(),), params=(NUM_BEAMS,))

    def init(self, env: Env) -> State:
        """Does `Beam.init`, and allocates `Σ log p` of each row."""
        import torch

        return super().init(env) | {"logp": torch.zeros(env.rows, device=env.device)}

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Does `Beam.step`, and adds up the log-probabilities."""
        step = super().step(outs, s, p, rng)
        assert step.parent is not None, "a search moves rows"
        taken = step.final.gather(-1, step.chosen[:, None])[:, 0]
        s["logp"].copy_(s["logp"].index_select(0, step.parent) + taken)
        return replace(step, extras={**step.extras, "log_sum": s["logp"].clone()})

    def extend(self, z: Tensor, s: State, p: Params, rng: Rng) -> tuple[Tensor, Continuations]:
        """Computes log-probabilities `[R, V]` of logits `[R, V]`, and the continuations of greatest G."""
        vocab = z.shape[-1]
        logp = rows.log_softmax(self.apply_chains(z, s, p, rng))
        perturbed = s["logp"][:, None] + logp + noise_of_hypotheses(logp, rng)
        scores = given_maximum(perturbed, s["score"][:, None])
        totals, flat = (row[0] for row in best(scores.view(1, -1), continuation_count(s, vocab)))
        return logp, Continuations(totals, flat // vocab, flat % vocab)

    def normalise(self, totals: Tensor, length: Tensor, p: Params) -> Tensor:
        """Leaves scores as they are."""
        return totals

    def reach(self, s: State, p: Params) -> Tensor:
        """Gives the present length: scores never rise."""
        return s["length"]

    def is_full(self, s: State, p: Params) -> Tensor:
        """Tells that finished hypotheses alone never end the search, bool `[1]`."""
        import torch

        return torch.zeros_like(s["improvable"][:1])


def given_maximum(g: Tensor, maximum: Tensor) -> Tensor:
    """Moves perturbed log-probabilities `[R, V]` so that the greatest of each row is `maximum [R, 1]`."""
    v = maximum - g + (-(g - rows.greatest(g)).expm1()).log()
    return maximum - v.clamp_min(0) - (-v.abs()).exp().log1p()
