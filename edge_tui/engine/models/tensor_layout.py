"""Describes under which names, and how, a family's checkpoints store the tensors of a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol


class Names(Protocol):
    """Tells which tensors a file has."""

    def __contains__(self, name: str, /) -> bool: ...


@dataclass(frozen=True, slots=True)
class ExpertLayout:
    """Names the tensors of a mixture of experts; the defaults are Qwen's.

    Each expert has tensors of its own, or all lie in one, `[E, out, in]`. Of several names the first that the
    file has counts. Names of an expert's own tensors, of routers and of the shared expert lack ".weight".

    Attributes:
        routers: The router.
        gate_up: An expert's gate and up; `{}` is its number. () where experts have no tensors of their own.
        down: An expert's output.
        all_gate_up: Gate and up of all experts.
        all_down: Outputs of all experts.
        transposed: True if the tensors of all are stored `[E, in, out]`, the outputs of gate and up in turns.
        shared_gate_up: The shared expert's gate and up.
        shared_down: Its output.
        shared_gate: Its gate.
    """

    routers: tuple[str, ...] = ("mlp.gate",)
    gate_up: tuple[str, ...] = ("mlp.experts.{}.gate_proj", "mlp.experts.{}.up_proj")
    down: str = "mlp.experts.{}.down_proj"
    all_gate_up: tuple[str, ...] = ("mlp.experts.gate_up_proj",)
    all_down: tuple[str, ...] = ("mlp.experts.down_proj",)
    transposed: bool = False
    shared_gate_up: tuple[str, ...] = ("mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj")
    shared_down: str = "mlp.shared_expert.down_proj"
    shared_gate: str = "mlp.shared_expert_gate"


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """Names the tensors of a checkpoint; the defaults are Llama's.

    Names lack ".weight" and ".bias". Those of a layer follow the prefix and `layer`.

    Attributes:
        prefixes: Beginnings of all names but the head's; the first that the file has counts.
        embedding: The embedding.
        positions: Learned positions, "" for none.
        project_in: Matrix from the embedding to the residual stream, where they differ in width.
        project_out: Matrix from the residual stream to what the head reads.
        sinks: A layer's attention sinks, by their whole name.
        layer: Beginning of a layer's names; `{}` is its number.
        norm: The last norm.
        heads: Names of the head; the first that the file has counts.
        qkv: Queries, keys and values, or one matrix of all.
        out: The attention's output.
        gate_up: Gate and up, or one matrix of both, or up alone where nothing is gated.
        down: The feed-forward layer's output.
        qk_norms: Norms of queries and of keys; `{}` is the number of a head that has its own.
        attention_norm: Norm before attention.
        mlp_norm: Norm before the feed-forward layer.
        attention_post_norm: Norm after attention.
        mlp_post_norm: Norm after the feed-forward layer.
        scale: A layer's factor on the residual stream, by its whole name.
        layer_embedding: The embedding that each layer has a part of.
        layer_projection: Matrix from the embedded stream to the inputs of all layers.
        layer_projection_norm: Norm of what it gives.
        layer_gate: A layer's matrix from the stream to the gate of its input.
        layer_out: Its matrix from there back to the stream.
        layer_post_norm: The norm behind it.
        norm_bias: True if norms have a bias.
        norm_offset: Added to the stored weights of norms.
        grouped: True if the one matrix of all holds, for each key head, its queries, the key and the value.
        interleaved: True if rotation pairs neighbours; rows are then put in order when read.
        transposed: True if matrices are stored `[in, out]`.
        experts: Names of a mixture's tensors.
    """

    prefixes: tuple[str, ...] = ("model.",)
    embedding: str = "embed_tokens"
    positions: str = ""
    project_in: str = ""
    project_out: str = ""
    layer: str = "layers.{}."
    norm: str = "norm"
    heads: tuple[str, ...] = ("lm_head",)
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    out: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    sinks: str = "self_attn.sinks"
    qk_norms: tuple[str, str] = ("self_attn.q_norm", "self_attn.k_norm")
    attention_norm: str = "input_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    attention_post_norm: str = "post_attention_layernorm"
    mlp_post_norm: str = "post_feedforward_layernorm"
    scale: str = "layer_scalar"
    layer_embedding: str = "embed_tokens_per_layer"
    layer_projection: str = "per_layer_model_projection"
    layer_projection_norm: str = "per_layer_projection_norm"
    layer_gate: str = "per_layer_input_gate"
    layer_out: str = "per_layer_projection"
    layer_post_norm: str = "post_per_layer_input_norm"
    norm_bias: bool = False
    norm_offset: float = 0.0
    grouped: bool = False
    interleaved: bool = False
    transposed: bool = False
    experts: ExpertLayout = ExpertLayout()

    def found_in(self, names: Names) -> TensorLayout:
        """Chooses prefix and head by the names that a file has."""
        prefix = next((p for p in self.prefixes if f"{p}{self.embedding}.weight" in names), self.prefixes[0])
        head = next((h for h in self.heads if f"{h}.weight" in names), self.heads[0])
        return replace(self, prefixes=(prefix,), heads=(head,))

    @property
    def ends(self) -> tuple[str, str]:
        """The stored names of embedding and head."""
        return f"{self.prefixes[0]}{self.embedding}.weight", f"{self.heads[0]}.weight"

    def in_layer(self, i: int) -> str:
        """Returns the beginning of the names of layer `i`."""
        return self.prefixes[0] + self.layer.format(i)

    def matrix_of(self, name: str) -> str | None:
        """Names the matrix of a layer that a stored tensor is a part of; None for all other tensors."""
        if not name.endswith(".weight"):
            return None
        stem = name.removesuffix(".weight")
        for first, part in self._parts():
            if stem.endswith(f".{part}"):
                return stem.removesuffix(part) + first
        return None

    def _parts(self) -> Iterator[tuple[str, str]]:
        shared = self.experts.shared_gate_up, (self.experts.shared_down,)
        ways = (self.out,), (self.down,), (self.layer_gate,), (self.layer_out,), (self.layer_projection,)
        for parts in (self.qkv, self.gate_up, *ways, *shared):
            yield from ((parts[0], part) for part in parts)
