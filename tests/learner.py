"""A strategy of a user's own that learns from each token that it takes."""

from __future__ import annotations

LEARNER = '''
"""Mirostat 2, a stage that remembers every fifth token beside it, and a constant that no step changes."""
import torch
from edge_tui.decoders.base import Filter, Needs, Param

class Learner(Filter):
    name, title, summary = "learner", "learner", "Learns."
    params = (Param("tau", 3.0, 0.1, 20.0, "Surprise."),)
    needs = Needs(counts=True, history=3)

    def constants(self, env):
        return {"rate": torch.full((1,), 0.3)}

    def init(self, env):
        return {"mu": torch.full((env.rows, 1), 6.0), "fifth": torch.full((env.rows, 1), -1)}

    def apply(self, z, p, s, rng):
        assert s["ids"].shape == (len(z), 3)
        surprise = -z.log_softmax(-1)
        kept = (surprise <= s["mu"]) | (surprise <= surprise.amin(-1, keepdim=True))
        z = z.masked_fill(~kept, -float("inf")) - 0.1 * s["output_counts"]
        z = z.scatter_add(-1, s["fifth"].clamp_min(0), torch.full_like(z[:, :1], -1.0))
        return z.scatter_add(-1, s["ids"][:, :1].clamp_min(0), torch.full_like(z[:, :1], -2.0))

    def observe(self, s, p, token):
        s["mu"].sub_(s["rate"] * (-token.raw[:, None] - p["tau"]) + 0.01 * token.final[:, None])
        s["fifth"].copy_(torch.where(token.step[:, None] % 5 == 4, token.id[:, None], s["fifth"]))
'''
