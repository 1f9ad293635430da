"""Quadratic sampling (kalomaze, 2024; no paper) bends logits into a parabola that hangs from the best one.

`z' = max z − k · (z − max z)²`: differences below 1/k shrink, those above grow, and the order stays. Default
k = 0, which is neutral: nothing changes. References: textgen's `QuadraticSmoothingLogitsWarper` at
`smoothing_curve` 1 and koboldcpp, whose name of k, `smoothing_factor`, this has.
"""

from __future__ import annotations

from edge_tui.decoders.base import Filter, Param, Params, Rng, State, Tensor, rows


class Quadratic(Filter):
    """Reshapes logits by the square of their distance from the best one; removes none."""

    name = "quadratic"
    title = "quadratic"
    summary = "Draws with near rivals of the best token lifted and far ones pressed down."
    rank = 31
    reshapes = True
    params = (
        Param(
            "smoothing_factor",
            0.0,
            0.0,
            10.0,
            "Lower flattens, higher sharpens; 0 changes nothing.",
            neutral=0.0,
        ),
    )

    def apply(self, z: Tensor, p: Params, s: State, rng: Rng) -> Tensor:
        """Maps z to `max z − k · (z − max z)²`; k = 0 leaves it."""
        import torch

        k, top = p["smoothing_factor"], rows.greatest(z)
        return (top - k * (z - top).square()).where((k > 0) & (z > -torch.inf), z)
