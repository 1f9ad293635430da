"""Gives the distribution that must come out of checked proposals: the main model's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_tui.verify.outcome import Float64
from edge_tui.verify.references.kinds import ProposalReference, Values

ARGMAX_BELOW = 1e-5


def _speculative(z: Float64, v: Values) -> Float64:
    if v["temperature"] < ARGMAX_BELOW:
        best = np.arange(z.shape[-1]) == z.argmax(-1, keepdims=True)
        return np.where(best, 0.0, -np.inf)
    return z / v["temperature"]


def _look_up(ids: Sequence[int], v: Values) -> Sequence[int]:
    import torch
    from transformers.generation.candidate_generator import PromptLookupCandidateGenerator

    generator = PromptLookupCandidateGenerator(
        num_output_tokens=int(v["lookahead"]),
        max_matching_ngram_size=int(v["max_ngram"]),
        max_length=len(ids) + 100,
    )
    found, _ = generator.get_candidates(torch.tensor([ids]))
    return found[0, len(ids) :].tolist()  # type: ignore[no-any-return]


_SETTINGS = ({"temperature": 0.8}, {"temperature": 1.5})
_GREEDY = {"temperature": 0.0}
PROPOSALS = {
    "speculative": ProposalReference(_speculative, _SETTINGS, _GREEDY),
    "ngram": ProposalReference(
        _speculative,
        _SETTINGS,
        _GREEDY,
        _look_up,
        (
            "Where nothing is found, or the text ends, transformers proposes less, as its steps may differ in"
            " length.",
        ),
    ),
}
