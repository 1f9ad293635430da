"""Greedy: always the likeliest token, `argmax z`.

Really greedy: no temperature, no inherited `do_sample`. Penalties (`edge_tui.decoders.penalties`) are at
hand, and neutral unless asked for. Reference: transformers' `generate(do_sample=False)`, token for token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.base import Decoder, Env, Output, Params, Step
from edge_tui.decoders.core.best import argmax, only
from edge_tui.decoders.core.chain import Chain, last_logits
from edge_tui.decoders.penalties import penalties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.decoders.base import State
    from edge_tui.decoders.core.random import Rng


class Greedy(Decoder):
    """Takes the argmax."""

    name = "greedy"
    title = "greedy"
    summary = "Always the likeliest token."
    rank = 1
    openai = True
    takes_argmax = True
    traceable = True

    def __init__(self) -> None:
        self.chain = Chain(penalties())
        self.params = self.chain.params

    def init(self, env: Env) -> State:
        return self.chain.init(env)

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        z = self.chain.apply(last_logits(outs["model"], s), p, s, rng)
        taken = argmax(z)
        final = only(z, taken)
        self.chain.observe(s, taken[:, 0], final)
        return Step(taken[:, 0], final)
