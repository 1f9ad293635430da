"""Loads a checkpoint into the flat decoder: fused matrices, filled tensor by tensor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.models.architectures import FlatConfig, flat_config
from edge_tui.engine.models.base import ModelInfo
from edge_tui.engine.models.flat import FlatModel
from edge_tui.engine.models.layers import DecoderWeights, Layer
from edge_tui.engine.ops.cpu.packed_sizes import packers
from edge_tui.engine.ops.linear import CpuLinear, Linear, PlainLinear, float32_on_cpu
from edge_tui.engine.ops.quantisation import head_packer_of, packer_of
from edge_tui.machine.devices import release_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.checkpoints.source import CheckpointSource
    from edge_tui.engine.ops.quantisation import Packer

_PIECE = 4096
"""Rows compared at once, which bounds the room for it."""


@torch.no_grad()
def load_flat(
    source: CheckpointSource,
    *,
    device: str,
    dtype: torch.dtype,
    precision: str,
    context: int = 0,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    weights_from: Callable[..., Weights] = Weights,
) -> FlatModel:
    """Loads a checkpoint into the flat decoder.

    Args:
        source: The checkpoint.
        device: "cpu", "cuda:0", "mps".
        dtype: Compute dtype, and that of what is not quantised.
        precision: "int8" or "4bit" quantise the layers' matrices, on a CPU the head too, and leave 16 bits
            to the embedding there; anything else keeps `dtype`, except that large matrices which 16 bits hold
            are kept in 16 bits by a CPU that computes in float32.
        context: Most positions to promise in `info.context`; 0 means the model's own limit.
        progress: Called with (bytes read, bytes in all).
        cancelled: Called before each tensor.
        weights_from: Makes the weights from the source's tensors; called as `Weights` is.

    Raises:
        UnsupportedError: the config is not one of the flat tier; `supports` says so beforehand.
        WeightsError: a tensor or file is missing or damaged.
        PrecisionError: the device cannot run the precision.
        Cancelled: `cancelled()` said so; nothing stays allocated.
    """
    flat = flat_config(source.config)
    pack, pack_head = packer_of(precision, device), head_packer_of(precision, device)
    with closing(source.open_tensors()) as tensors:
        reader = weights_from(tensors, device, dtype, progress, cancelled)
        # Both before the layers, because no other matrix is as wide before it is packed.
        embedding, last = read_ends(reader, flat)
        tied = last is embedding
        head = pack_head(last, None)
        del last
        if not isinstance(head, PlainLinear):
            embedding = _narrow(embedding, exactly=isinstance(head, CpuLinear) and head.kind == "half")
        layers = _read_layers(reader, flat, pack)
        norm = reader.get("model.norm.weight", flat.hidden)
    weights = DecoderWeights(embedding, layers, norm, head)
    vectors = [embedding, norm, *(t for layer in layers for t in (layer.attention_norm, layer.mlp_norm))]
    head_norms = [layer.qk_norm for layer in layers if layer.qk_norm is not None]
    *matrices, _ = weights.matrices
    info = ModelInfo(
        name=source.name,
        architecture=flat.architecture,
        vocab=flat.vocab,
        context=min(context or flat.context, flat.context),
        parameters=sum(t.numel() for t in vectors)
        + sum(m.parameters for m in matrices)
        + (0 if tied else head.parameters)
        + 2 * flat.head_dim * len(head_norms),
        weight_bytes=sum(t.nbytes for t in (*vectors, *head_norms))
        + sum(m.nbytes for m in matrices)
        + (0 if tied and isinstance(head, PlainLinear) else head.nbytes),
        kv_bytes=2 * flat.layers * flat.kv_heads * flat.head_dim * dtype.itemsize,
        dtype=str(dtype).removeprefix("torch."),
        precision=precision,
        device=device,
        tier="flat",
    )
    return FlatModel(flat, info, weights)


def _read_layers(weights: Weights, flat: FlatConfig, pack: Packer) -> tuple[Layer, ...]:
    """Reads every layer and packs its matrices."""
    with _PackingPool(pack) as pool:
        pending = []
        for i in range(flat.layers):
            pending.append(_layer(weights, flat, i, pool))
            if weights.device == "cpu" and pack is not PlainLinear:
                release_freed_memory()  # packing leaves holes, which would be as much again as the weights
        return tuple(layer() for layer in pending)


def read_ends(weights: Weights, flat: FlatConfig) -> tuple[Tensor, Tensor]:
    """Reads the embedding and the head, one and the same tensor where they are tied.

    As in transformers, what the file holds counts for more than the config's word that they are tied: two
    that differ stay two, and one alone serves as both.
    """
    shape = flat.vocab, flat.hidden
    names = [
        name for name in ("model.embed_tokens.weight", "lm_head.weight") if name in weights or not flat.tied
    ]
    first, *other = [weights.get(name, *shape) for name in names or ["model.embed_tokens.weight"]]
    return first, first if not other or (flat.tied and torch.equal(first, other[0])) else other[0]


def _narrow(embedding: Tensor, exactly: bool) -> Tensor:
    """Stores the embedding in 16 bits; if `exactly`, only in a dtype that loses nothing."""
    if not exactly:
        return embedding.bfloat16()
    for dtype in (torch.bfloat16, torch.float16):
        narrow = embedding.to(dtype)
        pieces = (slice(at, at + _PIECE) for at in range(0, len(narrow), _PIECE))
        if all(torch.equal(narrow[piece].float(), embedding[piece]) for piece in pieces):
            return narrow
    return embedding


class _PackingPool:
    """Packs matrices, several at once where packing one is a single thread's work."""

    def __init__(self, pack: Packer) -> None:
        self._pack = pack
        workers = packers()
        several = pack is float32_on_cpu and workers > 1
        self._pool = ThreadPoolExecutor(workers, "packing") if several else None
        self._free = BoundedSemaphore(workers)

    def __enter__(self) -> _PackingPool:
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, weight: Tensor, bias: Tensor | None) -> Callable[[], Linear]:
        """Begins a matrix, once fewer than all are at work; what is returned waits for it."""
        if self._pool is None:
            matrix = self._pack(weight, bias)
            return lambda: matrix
        self._free.acquire()
        future = self._pool.submit(self._pack, weight, bias)
        future.add_done_callback(lambda _: self._free.release())
        return future.result


def _layer(weights: Weights, c: FlatConfig, i: int, pool: _PackingPool) -> Callable[[], Layer]:
    """Reads a layer; what is returned waits for its matrices."""
    attention, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
    q, kv = c.heads * c.head_dim, c.kv_heads * c.head_dim

    def matrix(where: str, parts: dict[str, int], columns: int, bias: bool) -> Callable[[], Linear]:
        names, rows = [where + part for part in parts], list(parts.values())
        weight = weights.stack([n + ".weight" for n in names], rows, columns)
        return pool.submit(weight, weights.stack([n + ".bias" for n in names], rows) if bias else None)

    qkv_parts = {"qkv_proj": q + 2 * kv} if c.fused else {"q_proj": q, "k_proj": kv, "v_proj": kv}
    wide = c.intermediate
    gate_parts = {"gate_up_proj": 2 * wide} if c.fused else {"gate_proj": wide, "up_proj": wide}
    qk_norm = None
    if c.qk_norm:
        of_q, of_k = (weights.get(f"{attention}{part}_norm.weight", c.head_dim) for part in "qk")
        qk_norm = torch.cat((of_q.expand(c.heads, -1), of_k.expand(c.kv_heads, -1)))
    qkv = matrix(attention, qkv_parts, c.hidden, c.qkv_bias)
    out = matrix(attention, {"o_proj": c.hidden}, q, c.out_bias)
    gate_up = matrix(mlp, gate_parts, c.hidden, c.mlp_bias)
    down = matrix(mlp, {"down_proj": c.hidden}, wide, c.mlp_bias)
    attention_norm = weights.get(f"model.layers.{i}.input_layernorm.weight", c.hidden)
    mlp_norm = weights.get(f"model.layers.{i}.post_attention_layernorm.weight", c.hidden)
    return lambda: Layer(qkv(), out(), gate_up(), down(), attention_norm, mlp_norm, qk_norm, c.windows[i])
