"""Defines the weights of a decoder and of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edge_tui.engine.ops.experts import Experts
    from edge_tui.engine.ops.linear import Linear


@dataclass(frozen=True, slots=True)
class Norm:
    """Holds the weights of a norm."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Mlp:
    """Holds the two matrices of a dense feed-forward layer, or of the expert that every token passes."""

    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class LayerInput:
    """Holds what a layer makes of its own input: the gate over the stream, and the way back to it."""

    gate: Linear
    out: Linear
    norm: Norm


@dataclass(frozen=True, slots=True)
class PerLayerInputs:
    """Holds what the inputs of all layers are made of."""

    embedding: Tensor
    """`[V, layers * P]`."""
    projection: Linear
    """From the embedded stream to all inputs."""
    norm: Tensor
    """`[P]`."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Holds the weights of one decoder layer. A norm that the family does not have is None."""

    qkv: Linear
    out: Linear
    mlp: Mlp | None
    """None in a mixture of experts without a shared one."""
    attention_norm: Norm | None
    mlp_norm: Norm | None
    attention_post_norm: Norm | None
    mlp_post_norm: Norm | None
    qk_norm: Tensor | None
    """`[H + Hkv, D]`, the norms of each head's query and key, and of its value where that has one; fewer in a
    layer without keys of its own."""
    window: int
    """Positions that a query sees, its own included; 0 means all."""
    experts: Experts | None = None
    """None in a dense layer."""
    sinks: Tensor | None = None
    """`[H]`, for each query head the score of a key without a value."""
    scale: Tensor | None = None
    """`[1]`, factor on the residual stream behind the layer."""
    input: LayerInput | None = None
    """None without per-layer inputs."""

    @property
    def norms(self) -> list[Norm]:
        """Those of the residual stream, in the order of a step."""
        each = self.attention_norm, self.attention_post_norm, self.mlp_norm, self.mlp_post_norm
        own = self.input.norm if self.input else None
        return [norm for norm in (*each, own) if norm is not None]

    @property
    def matrices(self) -> list[Linear]:
        """Those outside a mixture of experts, in the order of a step."""
        own = (self.input.gate, self.input.out) if self.input else ()
        return [self.qkv, self.out, *((self.mlp.gate_up, self.mlp.down) if self.mlp else ()), *own]


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """Holds all weights of a decoder."""

    embedding: Tensor
    layers: tuple[Layer, ...]
    norm: Norm | None
    """The final norm; None where the family has none."""
    head: Linear
    positions: Tensor | None = None
    """Learned positions `[offset + context, hidden]`; None where the family has none."""
    project_in: Tensor | None = None
    """`[hidden, width]`, from an embedding of another width to the residual stream."""
    project_out: Tensor | None = None
    """`[width, hidden]`, from the residual stream to the head."""
    inputs: PerLayerInputs | None = None
    """None without per-layer inputs."""

    @property
    def norms(self) -> list[Norm]:
        """All norms of the residual stream, in the order of a step; the final one is the last."""
        layers = chain.from_iterable(layer.norms for layer in self.layers)
        return [*layers, *([] if self.norm is None else [self.norm])]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that a step computes in, which norms keep when matrices are packed."""
        return self.norms[0].weight.dtype

    @property
    def vectors(self) -> list[Tensor]:
        """All tensors but the matrices that may be packed and the norms of queries and keys."""
        norms = (t for norm in self.norms for t in (norm.weight, norm.bias))
        ends = self.embedding, self.positions, self.project_in, self.project_out
        experts = (t for layer in self.layers if layer.experts for t in layer.experts.tensors)
        sinks = (layer.sinks for layer in self.layers)
        scales = (layer.scale for layer in self.layers)
        inputs = (self.inputs.embedding, self.inputs.norm) if self.inputs else ()
        return [t for t in (*ends, *norms, *experts, *sinks, *scales, *inputs) if t is not None]

    @property
    def matrices(self) -> list[Linear]:
        """All matrices, in the order of a step; the head is the last."""
        first = [self.inputs.projection] if self.inputs else []
        return [*first, *chain.from_iterable(layer.matrices for layer in self.layers), self.head]
