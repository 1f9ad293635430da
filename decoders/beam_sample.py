"""Beam sampling draws the continuations of a beam search instead of taking the best.

Of all continuations of all beams it draws `max(2, 1 + E)·B` (`E` end-of-sequence ids) without replacement,
each with a chance of `softmax(Σ log p / τ)` among those left: by Gumbel-top-k, the greatest
`Σ log p + τ·luck`, where a continuation has luck of its own, by beam and token. Those drawn come in the
order of the draw. One that ends is *finished* only if it is among the first B; the B of the others with the
best `Σ log p` live on. All else is beam search: scores, length penalty, the search's end.

Temperature 0 is beam search, and one beam is sampling, token for token at the same seed.

This is transformers' `generate(do_sample=True, num_beams=B)` (5.23). It adds up `log p / τ` and so divides
all scores by τ, which changes no order where τ stays; and it filters after the temperature, whereas here
stages around the strategy (`beam_sample:top_k`) act before it. Its one beam penalises logits, as here.
"""

from __future__ import annotations

from edge_tui.decoders.base import Params, Rng, State, Tensor, best, noise_of_hypotheses, rows
from edge_tui.decoders.beam import (
    EARLY_STOPPING,
    LENGTH_PENALTY,
    NUM_BEAMS,
    Beam,
    Continuations,
    continuation_count,
)
from edge_tui.decoders.penalties import penalties
from edge_tui.decoders.temperature import TEMPERATURE


class BeamSample(Beam):
    """Searches with B rows whose continuations are drawn; records what beam search does."""

    name = "beam_sample"
    title = "beam sample"
    summary = "Draws the hypotheses that live on, and returns the best that finishes."
    rank = 61

    def __init__(self) -> None:
        params = (NUM_BEAMS, TEMPERATURE, LENGTH_PENALTY, EARLY_STOPPING)
        super(Beam, self).__init__(penalties(), params=params)

    def extend(self, z: Tensor, s: State, p: Params, rng: Rng) -> tuple[Tensor, Continuations]:
        """Computes log-probabilities `[R, V]` of logits `[R, V]`, and draws continuations."""
        vocab = z.shape[-1]
        if len(z) == 1:
            logp = rows.log_softmax(self.apply_chains(z, s, p, rng))
        else:
            logp = self.apply_chains(rows.log_softmax(z), s, p, rng)
        totals = s["score"][:, None] + logp
        luck = p["temperature"] * noise_of_hypotheses(logp, rng)
        flat = best((totals + luck).view(1, -1), continuation_count(s, vocab))[1][0]
        return logp, Continuations(totals.view(-1)[flat], flat // vocab, flat % vocab)

    def order(self, found: Continuations, ends: Tensor, beams: int) -> Tensor:
        """Sorts the places of continuations: those that go on first, best first; of one beam as drawn."""
        if beams == 1:
            return super().order(found, ends, beams)
        ranked = found.score.argsort(descending=True, stable=True)
        return ranked[ends[ranked].byte().argsort(stable=True)]
