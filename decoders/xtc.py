"""XTC, "exclude top choices" (p-e-w, 2024; no paper), drops the most obvious tokens now and then.

With probability π, where two or more tokens have p ≥ t, drops all of them but the least likely; one number
decides for a whole row. Defaults t = 0.1 and π = 0.5, the author's; π = 0 is neutral, and so is any t above
0.5. Reference: llama.cpp's `xtc`, which keeps one token where several are the least likely; here all stay.
"""

from __future__ import annotations

from edge_tui.decoders.base import Criterion, Filter, Param, Params, Rng, State, Tensor, rows


class Xtc(Filter):
    """Removes all likely tokens but the least likely of them, at random."""

    name = "xtc"
    title = "XTC"
    summary = "Draws with the likeliest tokens left out now and then."
    rank = 40
    params = (
        Param.share("xtc_probability", 0.5, "Share of steps that leave tokens out; 0 is none.", neutral=0.0),
        Param.share("xtc_threshold", 0.1, "Least probability of a likely token.", low_open=True, neutral=1.0),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks tokens above the least probability from t on, in rows whose number is below π."""
        return self.criterion(z, p, s, rng).cut(z)

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Compares probabilities with the least from t on, and with none where the number is not below π."""
        import torch

        prob = rows.softmax(z)
        threshold = p["xtc_threshold"].clamp(min=1e-30)  # a removed token, of probability 0, is below any
        least = rows.least(prob.masked_fill(prob < threshold, torch.inf))
        acts = rng.lane(0)[:, None] < p["xtc_probability"]
        return Criterion("p", prob, least.where(acts, torch.inf), is_most=True)
