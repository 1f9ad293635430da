"""Loads a checkpoint into the flat decoder: fused matrices, filled tensor by tensor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from threading import BoundedSemaphore
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.checkpoints.weight_files import WeightsError
from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.models import first_reading
from edge_tui.engine.models.architectures import FlatConfig, flat_config
from edge_tui.engine.models.base import ModelInfo
from edge_tui.engine.models.expert_reader import read_experts
from edge_tui.engine.models.flat import FlatModel
from edge_tui.engine.models.head_order import qkv_order, read_qk_norm
from edge_tui.engine.models.layer_shapes import unused_names
from edge_tui.engine.models.layers import DecoderWeights, Layer, LayerInput, Mlp, Norm, PerLayerInputs
from edge_tui.engine.models.weight_bytes import BUFFERS
from edge_tui.engine.ops.cpu.packed_sizes import packers
from edge_tui.engine.ops.linear import (
    CpuLinear,
    Linear,
    PlainLinear,
    codes_on_cpu,
    float32_on_cpu,
    int8_head_on_cpu,
)
from edge_tui.engine.ops.packed_linear import GroupLinear
from edge_tui.engine.ops.quantisation import head_packer_of, packer_of
from edge_tui.machine.devices import release_freed_memory
from edge_tui.machine.huge_pages import move_to_huge_pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.checkpoints.source import CheckpointSource
    from edge_tui.engine.models.tensor_layout import TensorLayout
    from edge_tui.engine.ops.quantisation import Packer

_PIECE = 4096
"""Rows compared at once, which bounds the room for it."""
_LARGE = 100_000_000
"""Bytes of a model from which on a CPU does not find its weights in its caches."""


@torch.no_grad()
def load_flat(
    source: CheckpointSource,
    *,
    device: str,
    dtype: torch.dtype,
    precision: str,
    context: int = 0,
    codes: bool = False,
    int8_head: bool = False,
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
        codes: True keeps the matrices as codes in groups where they are stored so, but for the embedding. On
            a CPU that and the head, and codes of more than four bits, are rounded to float16 then.
        int8_head: True quantises the head of a CPU that keeps codes to int8, its widest columns finer.
        progress: Called with (bytes read, bytes in all).
        cancelled: Called before each tensor.
        weights_from: Makes the weights from the source's tensors; called as `Weights` is.

    Raises:
        UnsupportedError: the config is not one of the flat tier; `supports` says so beforehand.
        WeightsError: a tensor or file is missing or damaged.
        PrecisionError: the device cannot run the precision.
        CodeFault: the device cannot multiply by codes.
        Cancelled: `cancelled()` said so; nothing stays allocated.
    """
    flat = flat_config(source.config)
    pack, pack_head = packer_of(precision, device), head_packer_of(precision, device)
    # A GPU's kernels compute in 16 bits, interpreted on a CPU too; its own ones do in float32.
    rounds = codes and dtype == torch.float32
    if rounds:
        pack = partial(float32_on_cpu, rounds=True)
        pack_head = int8_head_on_cpu if int8_head else pack
    with closing(source.open_tensors()) as tensors:
        reader = weights_from(tensors, device, dtype, progress, cancelled)
        # Both before the layers, because no other matrix is as wide before it is packed.
        layout = flat.layout.found_in(reader)
        embedding, head, tied = _pack_ends(reader, flat, layout, pack_head, rounds, codes and not rounds)
        layers = _read_layers(reader, replace(flat, layout=layout), pack, codes)
        prefix, norm = layout.prefixes[0], None
        if flat.features.final_norm:
            norm = read_norm(reader, layout, prefix + layout.norm, flat.hidden)
        positions = _read_positions(reader, flat, layout)
        inputs = _read_inputs(reader, flat, layout, pack)
        inner = outer = None
        if (width := flat.embedding_width) != flat.hidden:
            inner = reader.get(f"{prefix}{layout.project_in}.weight", flat.hidden, width)
            outer = reader.get(f"{prefix}{layout.project_out}.weight", width, flat.hidden)
        _refuse_unread(reader, flat, layout)
    weights = DecoderWeights(embedding, layers, norm, head, positions, inner, outer, inputs)
    if device == "cpu" and _count_bytes(weights, tied) >= _LARGE:
        # A step reads one row of the embedding, unless that is the head.
        first, size = embedding.data_ptr(), 0 if tied and isinstance(head, PlainLinear) else embedding.nbytes
        move_to_huge_pages(range(first, first + size))
    info = ModelInfo(
        name=source.name,
        architecture=flat.architecture,
        vocab=flat.vocab,
        layers=flat.layers,
        tied=tied,
        context=min(context or flat.context, flat.context),
        parameters=_count_parameters(flat, weights, tied),
        weight_bytes=_count_bytes(weights, tied),
        kv_bytes=flat.kv_width * dtype.itemsize,
        dtype=str(dtype).removeprefix("torch."),
        precision=precision,
        device=device,
        tier="flat",
    )
    return FlatModel(flat, info, weights)


def _pack_ends(
    reader: Weights, flat: FlatConfig, layout: TensorLayout, pack_head: Packer, rounds: bool, codes: bool
) -> tuple[Tensor, Linear, bool]:
    """Reads the embedding and packs the head; the flag says whether they are one matrix.

    A head of its own that is stored as codes stays so where a GPU's kernels read `codes`.
    """
    bias = reader.get(f"{layout.heads[0]}.bias", flat.vocab) if flat.head_bias else None
    shape = flat.vocab, flat.embedding_width
    first, own = layout.ends
    if codes and own in reader and (groups := reader.stack_codes([own], [shape[0]], shape[1])) is not None:
        coded = GroupLinear(groups, bias, reader.dtype)
        del groups  # before room is taken for the embedding
        return reader.get(first, *shape), coded, False
    embedding, last = read_ends(reader, flat)
    tied = last is embedding
    head = pack_head(last, bias)
    del last  # before room is taken for a narrower embedding
    if rounds and not isinstance(head, PlainLinear):
        embedding = embedding.half()
    elif not isinstance(head, PlainLinear):
        embedding = _narrow(embedding, exactly=isinstance(head, CpuLinear) and head.kind == "half")
    return embedding, head, tied


def _count_parameters(flat: FlatConfig, weights: DecoderWeights, tied: bool) -> int:
    """Counts the weights of a checkpoint; a tied head is the embedding."""
    *matrices, head = weights.matrices
    own_head = head.parameters - (flat.vocab * flat.embedding_width if tied else 0)
    head_norms = sum(layer.qk_norm.numel() for layer in weights.layers if layer.qk_norm is not None)
    head_norms -= flat.norm_copies
    scales = sum(layer.scale is not None for layer in weights.layers)  # buffers of the class
    vectors = sum(t.numel() for t in weights.vectors) - scales
    return vectors + head_norms + sum(m.parameters for m in matrices) + own_head


def _count_bytes(weights: DecoderWeights, tied: bool) -> int:
    """Counts what the weights take; a tied head that is not packed is the embedding's own memory."""
    *matrices, head = weights.matrices
    shared = weights.embedding.nbytes if tied and isinstance(head, PlainLinear) else 0
    head_norms = (layer.qk_norm for layer in weights.layers if layer.qk_norm is not None)
    vectors = sum(t.nbytes for t in (*weights.vectors, *head_norms))
    return vectors + sum(m.nbytes for m in matrices) + head.nbytes - shared


def _read_layers(weights: Weights, flat: FlatConfig, pack: Packer, codes: bool) -> tuple[Layer, ...]:
    """Reads every layer and packs its matrices."""
    with _PackingPool(pack, codes) as pool, ExitStack() as threads:
        pending = []
        for i in range(flat.layers):
            pending.append(_layer(weights, flat, i, pool))
            if not i and (thread := first_reading.begin(pending[0], flat, weights.device, weights.dtype)):
                threads.callback(thread.join)
            if weights.device == "cpu" and pack is not PlainLinear:
                release_freed_memory()  # packing leaves holes, which would be as much again as the weights
        return tuple(layer() for layer in pending)


def read_ends(weights: Weights, flat: FlatConfig) -> tuple[Tensor, Tensor]:
    """Reads the embedding and the head, one and the same tensor where they are tied.

    As in transformers, what the file holds counts for more than the config's word that they are tied: two
    that differ stay two, and one alone serves as both.
    """
    shape = flat.vocab, flat.embedding_width
    ends = flat.layout.found_in(weights).ends
    names = [name for name in ends if name in weights or not flat.tied]
    first, *other = [weights.get(name, *shape) for name in names or ends[:1]]
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
    """Packs matrices, several at once where packing one is a single thread's work.

    Attributes:
        keeps_codes: True if those that are stored as codes stay so.
    """

    def __init__(self, pack: Packer, keeps_codes: bool) -> None:
        self._pack = pack
        self.keeps_codes = keeps_codes
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


def read_norm(weights: Weights, layout: TensorLayout, name: str, width: int) -> Norm:
    """Reads a norm of the residual stream."""
    weight = weights.get(f"{name}.weight", width)
    if layout.norm_offset:
        weight = (weight.float() + layout.norm_offset).to(weight.dtype)
    return Norm(weight, weights.get(f"{name}.bias", width) if layout.norm_bias else None)


def _read_positions(weights: Weights, flat: FlatConfig, layout: TensorLayout) -> Tensor | None:
    """Reads the learned positions."""
    f = flat.features
    if not f.positions:
        return None
    name = f"{layout.prefixes[0]}{layout.positions}.weight"
    return weights.get(name, f.position_offset + f.positions, flat.hidden)


def _read_inputs(
    weights: Weights, flat: FlatConfig, layout: TensorLayout, pack: Packer
) -> PerLayerInputs | None:
    """Reads what the inputs of all layers are made of."""
    if not (width := flat.features.per_layer_width):
        return None
    prefix, all_widths = layout.prefixes[0], flat.layers * width
    return PerLayerInputs(
        weights.get(f"{prefix}{layout.layer_embedding}.weight", flat.vocab, all_widths),
        pack(weights.get(f"{prefix}{layout.layer_projection}.weight", all_widths, flat.hidden), None),
        weights.get(f"{prefix}{layout.layer_projection_norm}.weight", width),
    )


def _refuse_unread(weights: Weights, flat: FlatConfig, layout: TensorLayout) -> None:
    """Refuses a file whose layers or head hold what the config does not have: it is another model's.

    Raises:
        WeightsError: a tensor has not been read.
    """
    layers = layout.prefixes[0] + layout.layer.partition("{}")[0]
    unused = unused_names(layout, flat.shapes)
    for name in weights.unread():
        if (
            name not in unused
            and name.startswith((layers, f"{layout.heads[0]}."))
            and not BUFFERS.search(name)
        ):
            raise WeightsError(
                f"The checkpoint has a tensor {name}, which no {flat.architecture} of {flat.layers} layers "
                "has: its config.json is of another model."
            )


def _layer(weights: Weights, c: FlatConfig, i: int, pool: _PackingPool) -> Callable[[], Layer]:
    """Reads a layer; what is returned waits for its matrices."""
    layout, f = c.layout, c.features
    where = layout.in_layer(i)
    shape = c.shapes[i]
    q, kv, wide = c.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.intermediate
    # As many of queries, keys and values as the file has.
    parts = 1 if shape.source != i else 2 if shape.keys_are_values else 3

    def matrix(
        parts: tuple[str, ...], rows: list[int], columns: int, bias: bool, order: Tensor | None = None
    ) -> Callable[[], Linear]:
        """Stacks the matrices of some parts and begins to pack them; what is returned waits for that."""
        names = [where + part for part in parts]
        rows = rows if len(rows) == len(parts) else [sum(rows)]
        stored = [n + ".weight" for n in names]
        groups = weights.stack_codes(stored, rows, columns) if pool.keeps_codes else None
        vector = weights.stack([n + ".bias" for n in names], rows) if bias else None
        if groups is not None:
            if order is not None:
                groups, vector = groups[order], None if vector is None else vector[order]
            wide = weights.dtype == torch.float32
            kept = codes_on_cpu(groups, vector) if wide else GroupLinear(groups, vector, weights.dtype)
            return lambda: kept
        weight = _stacked(weights, stored, rows, columns, layout.transposed)
        if order is not None:
            weight, vector = weight[order], None if vector is None else vector[order]
        return pool.submit(weight, vector)

    def norm(name: str, present: bool) -> Norm | None:
        return read_norm(weights, layout, where + name, c.hidden) if present else None

    before, after = f.norm_place in ("before", "both"), f.norm_place != "before"
    order = qkv_order(c)
    qkv = matrix(
        layout.qkv[:parts],
        [q, kv, kv][:parts],
        c.hidden,
        c.qkv_bias,
        None if order is None else order.to(weights.device),
    )
    out = matrix((layout.out,), [c.hidden], q, c.out_bias)
    m, gate_up_names, down_name = f.mixture, layout.gate_up, layout.down
    experts = None
    if m is not None and m.layers[i]:
        experts, wide = read_experts(weights, c, m, where), m.shared
        gate_up_names, down_name = layout.experts.shared_gate_up, layout.experts.shared_down
    mlp = None
    if wide:
        gate_up = matrix(gate_up_names, [wide, wide] if f.gated else [wide], c.hidden, c.mlp_bias)
        down = matrix((down_name,), [c.hidden], wide, c.mlp_bias)
        mlp = gate_up, down
    attention_norm, mlp_norm = (
        norm(layout.attention_norm, before),
        norm(layout.mlp_norm, before and not f.shared_norm),
    )
    attention_post, mlp_post = norm(layout.attention_post_norm, after), norm(layout.mlp_post_norm, after)
    qk_norm = read_qk_norm(weights, c, i, where)
    own = None
    if p := f.per_layer_width:
        gate = matrix((layout.layer_gate,), [p], c.hidden, False)
        back = matrix((layout.layer_out,), [c.hidden], p, False)
        own = gate, back, read_norm(weights, layout, where + layout.layer_post_norm, c.hidden)
    return lambda: Layer(
        qkv(),
        out(),
        Mlp(mlp[0](), mlp[1]()) if mlp else None,
        attention_norm,
        mlp_norm,
        attention_post,
        mlp_post,
        qk_norm,
        c.windows[i],
        experts,
        weights.get(where + layout.sinks, c.heads) if f.sinks else None,
        weights.get(where + layout.scale, 1) if f.layer_scale else None,
        LayerInput(own[0](), own[1](), own[2]) if own else None,
    )


def _stacked(weights: Weights, names: list[str], rows: list[int], columns: int, transposed: bool) -> Tensor:
    """Reads the parts of a matrix `[rows, columns]`, which may be stored the other way round."""
    if not transposed:
        return weights.stack(names, rows, columns)
    parts = [weights.get(name, columns, count).t() for name, count in zip(names, rows, strict=True)]
    return torch.cat(parts).contiguous()
