"""Defines what a decoder may have beside what Llama has, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_tui.engine.models.rope_config import RopeConfig

if TYPE_CHECKING:
    from edge_tui.engine.models.layer_shapes import LayerShape
    from edge_tui.engine.models.mixture import Mixture

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""Activations by their names in config.json."""


@dataclass(frozen=True, slots=True)
class Features:
    """Describes a decoder by its differences from Llama; the defaults are Llama's.

    Attributes:
        norm: "rms" or "layer", the kind of every norm.
        norm_place: "before" attention and feed-forward layer, "after" them, "both", or on the "sum" of the
            residual stream and what each of them adds.
        final_norm: True if a norm comes after the last layer.
        parallel: True if both read the same residual stream and are added to it together; no norm follows.
        shared_norm: True if both read it through one norm.
        activation: A value of `ACTIVATIONS`.
        gated: True if the activation of one half is multiplied by another half.
        embedding_scale: Factor on the embedding.
        attention_scale: Factor on scores; 0 means `1 / sqrt(head_dim)`.
        residual_scale: Factor on what is added to the residual stream.
        logit_scale: Factor on logits.
        score_cap: Scores become `cap * tanh(scores / cap)`; 0 leaves them (arXiv 2408.00118).
        logit_cap: The same for logits.
        sinks: True if each head has a sink: a score that takes part in the softmax and has no value.
        local_rope: Rotary embedding of windowed layers where it is another.
        rotary: For each layer which rotary embedding turns its queries and keys: 0 the model's, 1 the
            local one, -1 none; () means 0 for all.
        alibi: True if scores fall with distance as Falcon's do.
        embedding_width: Width of the embedding, and of the state that the head reads, where matrices lead
            from it to the residual stream and back; 0 where it is the stream's.
        positions: Learned positions; 0 for a model without.
        position_offset: Rows of their table before the first one.
        mixture: Its mixtures of experts; None where every feed-forward layer is dense.
        shapes: Each layer's shape; () where all are alike.
        value_norm: True if values are normalised, too, by a norm without weights.
        layer_scale: True if a number multiplies the residual stream behind each layer.
        per_layer_width: Width of the embedding that each layer has of its own; 0 for none.
    """

    norm: str = "rms"
    norm_place: str = "before"
    final_norm: bool = True
    parallel: bool = False
    shared_norm: bool = False
    activation: str = "silu"
    gated: bool = True
    embedding_scale: float = 1.0
    attention_scale: float = 0.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    score_cap: float = 0.0
    logit_cap: float = 0.0
    sinks: bool = False
    local_rope: RopeConfig | None = None
    rotary: tuple[int, ...] = ()
    alibi: bool = False
    embedding_width: int = 0
    positions: int = 0
    position_offset: int = 0
    mixture: Mixture | None = None
    shapes: tuple[LayerShape, ...] = ()
    value_norm: bool = False
    layer_scale: bool = False
    per_layer_width: int = 0


LLAMA = Features()
"""Activations that the fused steps compute."""
