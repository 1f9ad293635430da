"""Bars the tokens that end an answer until it has n tokens.

Default n = 16; 0 is neutral. No paper. Reference: transformers' `MinNewTokensLengthLogitsProcessor`. Where
nothing but such tokens is left, the likeliest of them stays, as everywhere in a chain. Stop strings still end
an answer.
"""

from __future__ import annotations

from math import inf

from edge_tui.decoders.base import Env, Filter, Param, Params, Rng, State, Tensor


class MinNewTokens(Filter):
    """Removes end-of-sequence tokens at the start of an answer."""

    name = "min_new_tokens"
    title = "min new tokens"
    summary = "Draws an answer of at least n tokens."
    rank = 52
    penalty = True
    params = (
        Param("min_new_tokens", 16, 0, 100_000, "Fewest tokens of an answer; 0 is off.", 1, True, neutral=0),
    )

    def constants(self, env: Env) -> State:
        """Marks the tokens that end an answer."""
        import torch

        ids = torch.arange(env.vocab, device=env.device)
        return {"ends": (ids[:, None] == env.eos).any(-1)}

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Masks them while fewer tokens are there."""
        early = rng.step[:, None] < p["min_new_tokens"]
        return z.masked_fill(early & s["ends"], -inf)
