"""Computes the noise of a step's tokens once, for all draws that an explanation makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.decoders.core.best import argmax_and_lead
from edge_tui.decoders.core.random import Rng

if TYPE_CHECKING:
    from torch import Tensor


class KnownLuck(Rng):
    """Gives the random numbers of a step; draws of logits `[R, N]`, N at most `V`, add noise that is there.

    On a GPU the noise is that of a kernel, computed as those do that take steps.

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
        """Does `Rng.draw`, for few enough candidates on every device."""
        if z.shape[-1] > len(self.noise):
            return super().draw(z)
        ids, lead = argmax_and_lead(z + self.noise[: z.shape[-1]])
        return ids[:, 0], lead
