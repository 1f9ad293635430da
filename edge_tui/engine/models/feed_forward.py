"""Computes the feed-forward part of a layer in plain operations: dense, or a mixture of experts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from edge_tui.engine.ops.experts import Routing, choose, mix

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.models.features import Features
    from edge_tui.engine.models.layers import Layer, Mlp
    from edge_tui.engine.models.mixture import Mixture

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square_(),
}
"""Functions by their name in `Features.activation`."""


def routing(m: Mixture) -> Routing:
    """Returns the rules by which a model chooses and gates its experts."""
    return Routing(m.active, m.normalised, m.limit, m.alpha)


class FeedForward:
    """Computes the feed-forward part of any layer of a model.

    Args:
        features: The model's.
        kernels: True if the kernels of a GPU compute mixtures for a few tokens.
    """

    def __init__(self, features: Features, kernels: bool) -> None:
        self._activation = ACTIVATIONS[features.activation]
        self._gated = features.gated
        self._mixture = features.mixture
        self._kernels = kernels

    def __call__(self, layer: Layer, y: Tensor, few: bool = False) -> Tensor:
        """Returns what a layer makes of its normed input; both are `[N, hidden]`.

        With `few`, a step of some positions a row, kernels are for it, which never wait for the device.
        """
        m = self._mixture
        if layer.experts is None or m is None:
            assert layer.mlp is not None, "a layer without a feed-forward part"
            return self._dense(layer.mlp, y, few)
        logits = F.linear(y, layer.experts.router, layer.experts.router_bias)
        if few and self._kernels:
            from edge_tui.engine.ops.triton import experts

            shared = None if layer.mlp is None else self._dense(layer.mlp, y, few)
            return experts.mix(y, logits, layer.experts, routing(m), shared)
        chosen, shares = choose(logits, m.experts, routing(m))
        mixed = mix(y, layer.experts, chosen, shares, routing(m))
        if layer.mlp is None:
            return mixed
        gate = shares[:, m.active :].to(y.dtype)
        return torch.addcmul(mixed, self._dense(layer.mlp, y, few), gate)

    def _dense(self, mlp: Mlp, y: Tensor, few: bool) -> Tensor:
        wide = mlp.gate_up(y, few)
        if self._gated:
            gate, up = wide.chunk(2, -1)
            wide = self._activation(gate).mul_(up)
        else:
            wide = self._activation(wide)
        return mlp.down(wide, few)
