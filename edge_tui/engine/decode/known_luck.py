"""Computes the noise of a step's tokens once, for all draws that an explanation makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.best import argmax_and_lead
from edge_tui.decoders.core.random import Rng

if TYPE_CHECKING:
    from torch import Tensor


class KnownLuck(Rng):
    """Gives the random numbers of one row; draws of logits `[…, V]` add noise that is there already.

    On a GPU the noise is that of the kernels that took the step, to the last bit.

    Args:
        rng: The step's; its rows share one key.
        width: Vocabulary `V`.

    Attributes:
        noise: float32 `[V]`.
    """

    def __init__(self, rng: Rng, width: int) -> None:
        import torch

        super().__init__(rng.key, rng.step)
        one = Rng(rng.key[:1], rng.step)
        self.noise = one.gumbel(torch.arange(width, device=rng.key.device)[None])[0]

    def draw(self, z: Tensor) -> tuple[Tensor, Tensor] | None:
        """Does `Rng.draw`, on every device."""
        ids, lead = argmax_and_lead(z + self.noise)
        return ids[:, 0], lead
