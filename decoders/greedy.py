"""Greedy decoding takes the likeliest token, `argmax z`.

No temperature, no inherited `do_sample`. Penalties (`edge_tui.decoders.penalties`) are neutral unless set.
Reference: transformers' `generate(do_sample=False)`, token for token.
"""

from __future__ import annotations

from collections.abc import Mapping

from edge_tui.decoders.base import Decoder, Output, Params, Rng, State, Tensor, argmax, only
from edge_tui.decoders.core.step_log import take_best
from edge_tui.decoders.penalties import penalties


class Greedy(Decoder):
    """Takes the argmax."""

    name = "greedy"
    title = "greedy"
    summary = "Always the likeliest token."
    rank = 1
    openai = True
    takes_argmax = True

    def __init__(self) -> None:
        super().__init__(penalties())

    def final(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Tensor:
        z = super().final(outs, s, p, rng)
        return only(z, take_best(z))

    def choose(self, final: Tensor, p: Params, rng: Rng) -> Tensor:
        return argmax(final)[:, 0]
