"""Temperature: `softmax(z / τ)`; below 1 sharper, above 1 flatter, 0 is greedy (Ackley et al., 1985)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.base import Param, Params, Stage
from edge_tui.decoders.core.best import argmax, only

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.decoders.base import State
    from edge_tui.decoders.core.random import Rng

GREEDY_BELOW = 1e-5
"""Temperatures under this are greedy: dividing by them leaves nothing else, and could overflow."""

TEMPERATURE = Param(
    "temperature",
    default=1.0,
    low=0.0,
    high=5.0,
    step=0.05,
    neutral=1.0,
    help="Higher is more varied, lower more certain; 0 always takes the likeliest token.",
)
ORDER = Param(
    "order",
    default=0,
    low=0,
    high=1,
    integer=True,
    choices=("transformers", "llama.cpp"),
    live=False,
    help="Temperature before the filters (transformers) or after them (llama.cpp).",
)


class Temperature(Stage):
    """Divides logits by the temperature.

    A chain that offers both orders holds two of these, around its filters. The one whose turn it is not
    divides by 1, which leaves every bit as it was, so the order needs no branch on the host.

    Args:
        turn: The index into `ORDER.choices` under which this one acts; None acts always.
    """

    params = (TEMPERATURE,)

    def __init__(self, turn: int | None = None) -> None:
        self.turn = turn

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        tau = p["temperature"]
        if self.turn is not None:
            tau = tau.where(p["order"] == self.turn, 1.0)
        return scale(z, tau)


def scale(z: Tensor, tau: Tensor) -> Tensor:
    """`z / τ` for float32 `z [R, V]` and `τ [R, 1]`; τ = 0 keeps the (first) argmax alone."""
    greedy = tau < GREEDY_BELOW
    return only(z, argmax(z)).where(greedy, z / tau.masked_fill(greedy, 1.0))
