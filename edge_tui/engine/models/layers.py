"""Defines the weights of a decoder and of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.linear import Linear


@dataclass(frozen=True, slots=True)
class Layer:
    """Holds the weights of one decoder layer."""

    qkv: Linear
    out: Linear
    gate_up: Linear
    down: Linear
    attention_norm: Tensor
    mlp_norm: Tensor
    qk_norm: Tensor | None
    """`[H + Hkv, D]`, the norms of each head's query and key; None where the family has none."""
    window: int
    """Positions that a query sees, its own included; 0 means all."""


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Holds all weights of a decoder."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Tensor
    head: Linear

    @property
    def matrices(self) -> list[Linear]:
        """All matrices, in the order of a step; the head is the last."""
        layers = ((layer.qkv, layer.out, layer.gate_up, layer.down) for layer in self.layers)
        return [*chain.from_iterable(layers), self.head]
