"""Bans tokens that would make a sequence of n tokens appear twice (Paulus et al., arXiv 1705.04304).

Looks at the last 1,024 tokens of prompt and output. Default n = 3; 0 is neutral. Reference: transformers'
`NoRepeatNGramLogitsProcessor`, which looks at all of them.
"""

from __future__ import annotations

from math import inf

from edge_tui.decoders.base import Filter, Needs, Param, Params, Rng, State, Tensor, repeat_lengths

WINDOW, LONGEST = 1024, 20


class NoRepeatNgram(Filter):
    """Removes tokens that would repeat an n-gram of prompt or output."""

    name = "no_repeat_ngram"
    title = "no repeat n-gram"
    summary = "Draws while no sequence of n tokens may appear twice."
    rank = 51
    penalty = True
    params = (
        Param(
            "no_repeat_ngram_size",
            3,
            0,
            LONGEST,
            "Tokens of a sequence that may appear once; 0 is off.",
            1,
            True,
            neutral=0,
        ),
    )
    needs = Needs(history=WINDOW)

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks tokens of the window that have followed the last n − 1 tokens."""
        ids, n = s["ids"][:, -WINDOW:], p["no_repeat_ngram_size"]
        token = ids.clamp(0, z.shape[-1] - 1)
        banned = (repeat_lengths(ids, LONGEST - 1) >= n - 1) & (n > 0) & (ids == token)
        return z.scatter_reduce(-1, token, z.gather(-1, token).masked_fill(banned, -inf), "amin")
