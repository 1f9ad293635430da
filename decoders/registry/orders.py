"""Puts the stages of a chain into the order of transformers or of llama.cpp. Loads no torch.

Sources: transformers 5, `GenerationMixin._get_logits_processor`; llama.cpp, `common_params_sampling.samplers`
(`--samplers`), with its `logit_bias` and grammar in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edge_tui.decoders.base import Stage

ORDERS: dict[str, tuple[str, ...]] = {
    "transformers": (
        *("logit_bias", "penalties", "no_repeat_ngram", "bad_words", "min_new_tokens", "temperature"),
        *("top_h", "top_k", "top_p", "min_p", "typical", "epsilon", "eta", "watermark"),
    ),
    "llama.cpp": (
        *("logit_bias", "penalties", "dry", "top_n_sigma", "top_k", "typical", "top_p", "min_p", "xtc"),
        *("dynamic_temperature", "temperature"),
    ),
}
"""Names of stages by program, first to last."""


def put_in_order(stages: Sequence[str], program: str, known: Mapping[str, Stage]) -> list[str]:
    """Sorts stages into a program's order.

    A stage that the program does not have stands where its kind does: a penalty behind the penalties, one
    that selects at the end, any other behind the filters.

    Args:
        stages: Names without numbers.
        program: A key of `ORDERS`.
        known: Stages by name.
    """
    order = ORDERS[program]
    filters = max(order.index(name) for name in ("typical", "min_p"))

    def place(name: str) -> float:
        if known[name].last:
            return len(order)
        if name in order:
            return order.index(name)
        return order.index("penalties") + 0.5 if known[name].penalty else filters + 0.5

    return sorted(stages, key=place)
