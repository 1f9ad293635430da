"""Runs a decode step on an NVIDIA GPU as five kernels a layer.

norm + QKV · rotary, cache and attention · output + residual · norm + gate, up and their product · down +
residual. Lengths are read from the device, so the step means the same wherever the rows have got to, and a
graph of it can be replayed for ever. Everything between the kernels lies in buffers allocated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from edge_tui.engine.ops.attend import attend
from edge_tui.engine.ops.attend_scratch import Scratch
from edge_tui.engine.ops.cuda_capture import beside, fork
from edge_tui.engine.ops.l2_fetch import fetch_whole_lines
from edge_tui.engine.ops.packed import PackedMatrix
from edge_tui.engine.ops.project import MAX_TOKENS, embed, project
from edge_tui.engine.ops.triton.availability import available

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.cache import FlatContext
    from edge_tui.engine.models.layers import Layer
    from edge_tui.engine.ops.linear import Linear

MAX_POSITIONS = 8
"""Most positions of a row in one call."""


@dataclass(frozen=True, slots=True)
class Matrices:
    """Holds a layer's matrices as the kernels read them."""

    qkv: PackedMatrix
    out: PackedMatrix
    gate_up: PackedMatrix
    down: PackedMatrix


@dataclass(frozen=True, slots=True)
class Buffers:
    """Holds what passes between the kernels of a step with `T` tokens.

    Attributes:
        x: `[T, hidden]`, the residual stream.
        qkv: `[T, (H + 2 Hkv) · D]`.
        heads: `[T, H · D]`, what attention returns.
        wide: `[T, intermediate]`.
        scratch: Partial results of attention.
    """

    x: Tensor
    qkv: Tensor
    heads: Tensor
    wide: Tensor
    scratch: Scratch


class FusedStep:
    """Appends up to `MAX_POSITIONS` positions to each row. `fuse` makes one."""

    def __init__(
        self,
        config: FlatConfig,
        embedding: Tensor,
        layers: Sequence[Layer],
        matrices: Sequence[Matrices],
        norm: Tensor,
        head: PackedMatrix,
    ) -> None:
        self._config = config
        self._embedding = embedding
        self._layers = list(zip(layers, matrices, strict=True))
        self._norm = norm
        self._head = head
        self._buffers: dict[tuple[int, int], Buffers] = {}

    def fits(self, rows: int, k: int) -> bool:
        """Tells whether the kernels take that many tokens."""
        return k <= MAX_POSITIONS and rows * k <= MAX_TOKENS

    def __call__(self, ctx: FlatContext, ids: Tensor) -> Tensor:
        """Appends `ids` int64 `[R, K]` to a context with room for them.

        Returns:
            Logits float32 `[R, K, V]`.
        """
        c = self._config
        rows, k = ids.shape
        b = self._buffers_for(rows, k)
        embed(ids.reshape(-1), self._embedding, b.x)
        branch = None
        for i, (layer, m) in enumerate(self._layers):
            project(b.x, m.qkv, b.qkv, norm=layer.attention_norm, eps=c.eps)
            attend(
                b.qkv,
                ctx.root(i),
                ctx.forked(i),
                ctx.base,
                ctx.owner,
                ctx.length,
                ctx.cos,
                ctx.sin,
                b.heads,
                b.scratch,
                heads=c.heads,
                kv_heads=c.kv_heads,
                k=k,
                qk_norm=layer.qk_norm,
                eps=c.eps,
                window=layer.window,
            )
            if i == len(self._layers) - 1:
                branch = fork()
            project(b.heads, m.out, b.x, residual=b.x)
            project(b.x, m.gate_up, b.wide, norm=layer.mlp_norm, eps=c.eps, gate=True)
            project(b.wide, m.down, b.x, residual=b.x)
        logits = ctx.logits_out
        if logits is None:
            logits = torch.empty(rows, k, self._head.rows, dtype=torch.float32, device=ids.device)
        project(b.x, self._head, logits.view(rows * k, -1), norm=self._norm, eps=c.eps)
        with beside(branch):
            ctx.advance(k)
        return logits

    def _buffers_for(self, rows: int, k: int) -> Buffers:
        buffers = self._buffers.get((rows, k))
        if buffers is None:
            c, tokens = self._config, rows * k
            like = self._embedding

            def empty(width: int) -> Tensor:
                return torch.empty(tokens, width, dtype=like.dtype, device=like.device)

            buffers = self._buffers[rows, k] = Buffers(
                x=empty(c.hidden),
                qkv=empty((c.heads + 2 * c.kv_heads) * c.head_dim),
                heads=empty(c.heads * c.head_dim),
                wide=empty(c.intermediate),
                scratch=Scratch(rows, k, c.heads, c.head_dim, like.device),
            )
        return buffers


def fuse(
    config: FlatConfig, embedding: Tensor, layers: Sequence[Layer], norm: Tensor, head: Linear
) -> FusedStep | str:
    """Makes a model's fused step, or tells in one sentence why it has none.

    Arguments are those of `FlatModel`.
    """
    if embedding.device.type != "cuda":
        return "The fused step is for NVIDIA GPUs."
    if (reason := available()) is not None:
        return reason
    matrices = []
    for layer in layers:
        packed = [m.packed() for m in layer.matrices]
        if any(m is None for m in packed):
            return "A matrix of this model is stored in a way that the fused kernels cannot read."
        matrices.append(Matrices(*packed))  # type: ignore[arg-type]
    from edge_tui.engine.ops.triton.project import levels

    fetch_whole_lines(embedding.device)
    levels(embedding.device)  # now, since no step may wait for the device
    packed_head = head.packed()
    assert packed_head is not None, "the head keeps the compute dtype"
    return FusedStep(config, embedding, layers, matrices, norm, packed_head)
