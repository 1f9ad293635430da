"""Makes a strategy of a filter: penalties, temperature, the filter, then a draw."""

from __future__ import annotations

from edge_tui.decoders.base import Decoder, Filter
from edge_tui.decoders.penalties import FREQUENCY, PRESENCE, REPETITION, penalties
from edge_tui.decoders.temperature import ORDER, TEMPERATURE, Temperature


class Sampling(Decoder):
    """Draws from the tokens that a filter leaves.

    The `order` parameter says where the temperature acts: before the filter as in transformers
    (penalties → temperature → filter) or after it as in llama.cpp (penalties → filter → temperature). With
    the same numbers the first lets a high temperature widen the nucleus, the second does not.

    A penalty acts on the model's logits, in front of everything else, and a stage that selects acts last;
    there is no such order then.

    Args:
        stage: The filter, which gives this strategy its name.
    """

    def __init__(self, stage: Filter) -> None:
        self.declare_as(stage)  # one class serves every filter
        self.filter = stage
        params = (*stage.params, TEMPERATURE, REPETITION, PRESENCE, FREQUENCY)
        if stage.penalty:
            super().__init__((stage, *penalties(), Temperature()), params=params)
        elif stage.last:
            super().__init__((*penalties(), Temperature(), stage), params=params)
        else:
            chain = (*penalties(), Temperature(order=0), stage, Temperature(order=1))
            super().__init__(chain, params=(*params, ORDER))
