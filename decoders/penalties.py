"""Penalties lower the logits of tokens that the context already holds; every strategy has them, all neutral.

* repetition (CTRL, arXiv 1909.05858): `z/θ` if `z > 0` else `z·θ`, once for each token seen in prompt or
  output; θ = 1 does nothing. As in transformers: no window.
* presence, frequency (OpenAI's definition): `z − presence·[n > 0] − frequency·n`, with `n` the token's count
  in the output alone; 0 does nothing.
"""

from __future__ import annotations

from edge_tui.decoders.base import Needs, Param, Params, Rng, Stage, State, Tensor

REPETITION = Param(
    "repetition_penalty",
    default=1.0,
    low=0.0,
    low_open=True,
    high=5.0,
    neutral=1.0,
    label="repetition",
    help="Above 1 avoids tokens of the prompt and the answer, below 1 favours them.",
)
PRESENCE = Param(
    "presence_penalty",
    default=0.0,
    low=-2.0,
    high=2.0,
    step=0.1,
    neutral=0.0,
    label="presence",
    help="Higher avoids tokens that the answer already holds, however often.",
)
FREQUENCY = Param(
    "frequency_penalty",
    default=0.0,
    low=-2.0,
    high=2.0,
    step=0.1,
    neutral=0.0,
    label="frequency",
    help="Higher avoids tokens the more often the answer holds them.",
)


class Penalties(Stage):
    """Lowers the logits of tokens that prompt or output hold: repetition, then presence, then frequency."""

    name = "penalties"
    penalty = True
    params = (REPETITION, PRESENCE, FREQUENCY)
    needs = Needs(counts=True)

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Divides or multiplies by the repetition penalty, then subtracts the other two."""
        theta, output = p["repetition_penalty"], s["output_counts"]
        # z/θ or z·θ by the sign of z: the smaller of both for θ ≥ 1, else the larger. On a CPU a choice by
        # sign costs ten times as much, because no branch predictor can guess it.
        divided, multiplied = z / theta, z * theta
        penalised = divided.minimum(multiplied).where(theta >= 1, divided.maximum(multiplied))
        z = penalised.where((s["prompt_counts"] + output) > 0, z)
        return z - p["presence_penalty"] * (output > 0) - p["frequency_penalty"] * output


def penalties() -> tuple[Stage, ...]:
    """Makes the stage that most strategies begin with."""
    return (Penalties(),)
