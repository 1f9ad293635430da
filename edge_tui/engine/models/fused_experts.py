"""Runs a mixture of experts within the fused step of a GPU: three kernels after the router's product."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_tui.engine.models.feed_forward import routing
from edge_tui.engine.ops.packed import PackedMatrix

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from edge_tui.engine.models.layers import Layer
    from edge_tui.engine.models.mixture import Mixture


class FusedMixture:
    """Computes a model's mixtures, whose intermediate values lie in buffers allocated once.

    Args:
        mixture: Their numbers.
        factor: On what they add to the residual stream.
    """

    def __init__(self, mixture: Mixture, factor: float = 1.0) -> None:
        self._mixture, self._factor = mixture, factor
        self._how = routing(mixture)
        self._buffers: dict[int, tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]] = {}

    def __call__(
        self,
        layer: Layer,
        shared: Sequence[PackedMatrix],
        x: Tensor,
        norm: Tensor,
        eps: float,
        out: Tensor,
    ) -> None:
        """Adds a layer's mixture to the residual stream.

        Args:
            layer: With experts.
            shared: The matrices of the shared expert; empty without one.
            x: The residual stream `[T, hidden]`.
            norm: The weight of the norm before the mixture.
            eps: Its epsilon.
            out: `[T, hidden]`, the stream after the layer; may be `x`.
        """
        from edge_tui.engine.ops.triton import experts
        from edge_tui.engine.ops.triton.project import project

        assert layer.experts is not None, "a dense layer"
        weights, how = layer.experts, self._how
        logits, chosen, shares, wide, shared_wide, always = self._buffers_for(x)
        router = PackedMatrix("plain", weights.router, None, weights.router_bias, *weights.router.shape)
        project(x, router, logits, norm=norm, eps=eps)
        experts.choose_experts(logits, chosen, shares, self._mixture.experts, how)
        if shared:
            to_wide, to_down = shared
            project(x, to_wide, shared_wide, norm=norm, eps=eps, gate="silu")
            project(shared_wide, to_down, always)
        experts.gate_up(x, weights, chosen, wide, how, norm=norm, eps=eps)
        added = always if shared else None
        experts.down(wide, weights, chosen, shares, out, how, shared=added, residual=x, factor=self._factor)

    def _buffers_for(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns what passes between the kernels of a step with `T` tokens.

        The router's logits `[T, E (+ 1)]`; the choice `[T, A]` and shares `[T, A (+ 1)]`; gated values
        `[T * A, W]`; those of the shared expert, and its output `[T, hidden]`.
        """
        tokens, m = len(x), self._mixture
        if tokens not in self._buffers:
            gates = 1 if m.shared else 0
            logits = x.new_empty(tokens, m.experts + gates, dtype=torch.float32)
            chosen = x.new_empty(tokens, m.active, dtype=torch.int32)
            shares = x.new_empty(tokens, m.active + gates, dtype=torch.float32)
            wide, shared = x.new_empty(tokens * m.active, m.width), x.new_empty(tokens, m.shared)
            self._buffers[tokens] = logits, chosen, shares, wide, shared, torch.empty_like(x)
        return self._buffers[tokens]
