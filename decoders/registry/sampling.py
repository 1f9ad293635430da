"""Sampling: penalties, temperature and one filter, then a draw. What makes a filter a strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.chain import Chain, last_logits, merge
from edge_tui.decoders.core.decoder import Decoder, Output, Step
from edge_tui.decoders.core.params import Params
from edge_tui.decoders.core.random import draw
from edge_tui.decoders.core.stage import Env, Filter, Stage
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION, penalties
from edge_tui.decoders.temperature import ORDER, TEMPERATURE, Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edge_tui.decoders.core.random import Rng
    from edge_tui.decoders.core.stage import State


class Sampling(Decoder):
    """Draws from what a filter leaves.

    The `order` parameter says where the temperature acts: before the filter as in transformers
    (penalties → temperature → filter) or after it as in llama.cpp (penalties → filter → temperature). With
    the same numbers the first lets a high temperature widen the nucleus, the second does not.

    Args:
        filter: The filter that gives this strategy its name.
    """

    def __init__(self, filter: Filter) -> None:
        self.declare_as(filter)  # one class serves every filter
        self.filter = filter
        stages: tuple[Stage, ...] = (*penalties(), Temperature(turn=0), filter, Temperature(turn=1))
        self.chain = Chain(stages)
        self.params = merge((*filter.params, TEMPERATURE, REPETITION, PRESENCE, FREQUENCY, ORDER))

    def init(self, env: Env) -> State:
        return self.chain.init(env)

    def step(self, outs: Mapping[str, Output], s: State, p: Params, rng: Rng) -> Step:
        final = self.chain.apply(last_logits(outs["model"], s), p, s, rng)
        chosen = draw(final, rng)
        self.chain.observe(s, chosen, final)
        return Step(chosen, final)
