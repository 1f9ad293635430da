"""Gives the distribution that must come out of checked proposals: the main model's own."""

from __future__ import annotations

import numpy as np

from edge_tui.verify.outcome import Float64
from edge_tui.verify.references.kinds import ProposalReference, Values

ARGMAX_BELOW = 1e-5


def _speculative(z: Float64, v: Values) -> Float64:
    if v["temperature"] < ARGMAX_BELOW:
        best = np.arange(z.shape[-1]) == z.argmax(-1, keepdims=True)
        return np.where(best, 0.0, -np.inf)
    return z / v["temperature"]


PROPOSALS = {
    "speculative": ProposalReference(
        _speculative, settings=({"temperature": 0.8}, {"temperature": 1.5}), greedy={"temperature": 0.0}
    )
}
