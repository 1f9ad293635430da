"""Temperature divides logits, `softmax(z / τ)`: below 1 sharper, above 1 flatter, 0 greedy (Ackley, 1985)."""

from __future__ import annotations

from math import inf

from edge_tui.decoders.base import Criterion, Param, Params, Rng, Stage, State, Tensor
from edge_tui.decoders.core.step_log import take_best

GREEDY_BELOW = 1e-5
"""Smaller temperatures take the argmax: dividing by them leaves nothing else, and could overflow."""

TEMPERATURE = Param(
    "temperature",
    default=1.0,
    low=0.0,
    high=5.0,
    neutral=1.0,
    help="Higher is more varied, lower more certain; 0 always takes the likeliest token.",
)
ORDER = Param.choice(
    "order",
    ("transformers", "llama.cpp"),
    "Temperature before the filters (transformers) or after them (llama.cpp).",
    live=False,
)


class Temperature(Stage):
    """Divides logits by the temperature.

    A chain that offers both orders holds two of these, around its filters. One of them divides by 1, which
    leaves every bit as it was, so the order needs no branch on the host.

    Args:
        order: The index into `ORDER.choices` under which this one acts; None acts always.
    """

    name = "temperature"
    params = (TEMPERATURE,)

    def __init__(self, order: int | None = None) -> None:
        self.order = order

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Divides the logits by τ where it is this stage's turn."""
        return scale(z, self.tau(p))

    def criterion(self, z: Tensor, p: Params, s: State, rng: Rng) -> Criterion:
        """Gives τ, which is the same for every token."""
        return Criterion("T", self.tau(p).expand_as(z))

    def tau(self, p: Params) -> Tensor:
        """Gives the divisor, float32 `[R, 1]`: 1 where it is not this stage's turn."""
        tau = p["temperature"]
        return tau if self.order is None else tau.where(p["order"] == self.order, 1.0)


def scale(z: Tensor, tau: Tensor) -> Tensor:
    """Divides float32 `z [R, V]` by `τ [R, 1]`; τ = 0 keeps the (first) argmax alone."""
    greedy = tau < GREEDY_BELOW
    ids, divided = take_best(z, greedy), z / tau.masked_fill(greedy, 1.0)
    return divided.masked_fill(greedy, -inf).scatter_(-1, ids, divided.gather(-1, ids))
