"""Greedy decoding takes the likeliest token, `argmax z`.

No temperature, no inherited `do_sample`. Penalties (`edge_tui.decoders.penalties`) are neutral unless set.
Reference: transformers' `generate(do_sample=False)`, token for token.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import ChainDecoder, Output, Params, Rng, State, Step, argmax, last_logits, only
from edge_tui.decoders.penalties import penalties


class Greedy(ChainDecoder):
    """Takes the argmax."""

    name = "greedy"
    title = "greedy"
    summary = "Always the likeliest token."
    rank = 1
    openai = True
    takes_argmax = True
    traceable = True

    def __init__(self) -> None:
        super().__init__(penalties())

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        """Takes the argmax of the penalised logits."""
        z = self.chain.apply(last_logits(outs["model"], s), p, s, rng)
        chosen = argmax(z)
        final = only(z, chosen)
        self.chain.observe(s, chosen[:, 0], final)
        return Step(chosen[:, 0], final)
