"""Defines the weights of one decoder layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.ops.linear import Linear


@dataclass(frozen=True, slots=True)
class Layer:
    """Holds the weights of one decoder layer."""

    attention_norm: Tensor
    qkv: Linear
    qk_norm: Tensor | None
    """`[H + Hkv, D]`, the norms of each head's query and key; None where the family has none."""
    out: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear
    window: int
    """Positions that a query sees, its own included; 0 means all."""

    @property
    def matrices(self) -> tuple[Linear, Linear, Linear, Linear]:
        """All matrices, in the order of a step."""
        return self.qkv, self.out, self.gate_up, self.down
