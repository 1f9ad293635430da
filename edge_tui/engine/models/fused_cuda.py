"""Runs a decode step on an NVIDIA GPU as five kernels a layer, and some more in a mixture of experts.

norm + QKV · rotary, cache and attention · output + residual · norm + gate, up and their product · down +
residual. Lengths are read from the device, so the step means the same wherever the rows have got to, and a
graph of it can be replayed for ever. Everything between the kernels lies in buffers allocated once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from edge_tui.engine.models.fused_experts import FusedMixture
from edge_tui.engine.ops.cuda_capture import beside, fork
from edge_tui.engine.ops.l2_fetch import fetch_whole_lines
from edge_tui.engine.ops.triton.availability import available

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.cache import FlatContext
    from edge_tui.engine.models.layer_states import LayerStates
    from edge_tui.engine.models.layers import DecoderWeights
    from edge_tui.engine.ops.packed import PackedMatrix
    from edge_tui.engine.ops.triton.attend import Scratch

MAX_POSITIONS = 8
"""Most positions of a row in one call."""
MAX_TOKENS = 16
"""Above it the products are bound by arithmetic, which is a matter for cuBLAS."""


class FusedStep:
    """Appends up to `MAX_POSITIONS` positions to each row. `fuse` makes one.

    Args:
        config: The model's numbers.
        weights: Its weights.
        matrices: Those of `weights.matrices` as the kernels read them.
    """

    most_rows = MAX_TOKENS

    def __init__(self, config: FlatConfig, weights: DecoderWeights, matrices: list[PackedMatrix]) -> None:
        self._config = config
        self._weights = weights
        self._matrices = matrices
        mixture = config.features.mixture
        self._mixture = None if mixture is None else FusedMixture(mixture)
        self._norms = [norm.weight for norm in weights.norms]
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor, Scratch]] = {}

    def fits(self, ctx: FlatContext, k: int) -> bool:
        """Tells whether the kernels take that many tokens."""
        return k <= MAX_POSITIONS and ctx.rows * k <= MAX_TOKENS

    def __call__(self, ctx: FlatContext, ids: Tensor, states: LayerStates | None = None) -> Tensor:
        """Appends `ids` int64 `[R, K]` to a context with room for them.

        After a layer that `states` name the residual stream lies in the layer's slot instead of `x`.

        Returns:
            Logits float32 `[R, K, V]`; with `states` the head's product `[(E + 1) * R * K, V]`.
        """
        from edge_tui.engine.ops.triton.attend import attend
        from edge_tui.engine.ops.triton.project import embed, project

        c, w = self._config, self._weights
        rows, k = ids.shape
        x, qkv, heads, wide, scratch = self._buffers_for(rows, k)
        stream = x if states is None else states.place(0, x)
        embed(ids.reshape(-1), w.embedding, stream)
        branch = None
        matrices = iter(self._matrices)
        for i, layer in enumerate(w.layers):
            to_qkv, to_out, *feed_forward = (next(matrices) for _ in layer.matrices)
            project(stream, to_qkv, qkv, norm=self._norms[2 * i], eps=c.eps)
            attend(
                qkv,
                *ctx.sources(i),
                ctx.length,
                ctx.cos,
                ctx.sin,
                heads,
                scratch,
                heads=c.heads,
                kv_heads=c.kv_heads,
                k=k,
                qk_norm=layer.qk_norm,
                sinks=layer.sinks,
                eps=c.eps,
                window=layer.window,
            )
            if i == c.layers - 1:
                branch = fork()
            project(heads, to_out, x, residual=stream)
            norm, stream = self._norms[2 * i + 1], x if states is None else states.place(i + 1, x)
            if self._mixture is not None and layer.experts is not None:
                self._mixture(layer, feed_forward, x, norm, c.eps, stream)
                continue
            to_wide, to_down = feed_forward
            project(x, to_wide, wide, norm=norm, eps=c.eps, gate=True)
            project(wide, to_down, stream, residual=x)
        if states is None:
            head, logits = self._matrices[-1], ctx.logits_out
            if logits is None:
                logits = torch.empty(rows, k, head.rows, dtype=torch.float32, device=ids.device)
            project(x, head, logits.view(rows * k, -1), norm=self._norms[-1], eps=c.eps)
        else:
            logits = self._product(states)
        with beside(branch):
            ctx.advance(k)
        return logits

    def _product(self, states: LayerStates) -> Tensor:
        """Multiplies the head by the last layer's states and by those of early layers at once.

        The kernel applies the norm, unless somebody reads the last layer after it or early ones without it.

        Args:
            states: The residual stream lies in their slots.

        Returns:
            float32 `[(E + 1) * R * K, V]`.
        """
        from edge_tui.engine.ops.triton.project import project

        head, weight, eps = self._matrices[-1], self._norms[-1], self._config.eps

        def normed(rows: Tensor) -> Tensor:
            return F.rms_norm(rows, weight.shape, weight, eps)

        states.share()
        to_head = states.to_head
        norm: Tensor | None = weight
        if states.reads_last or not states.normed:
            to_head, norm = states.finish(normed(states.slots[-1]), normed), None
        product = states.product
        if product is None:
            product = torch.empty(len(to_head), head.rows, dtype=torch.float32, device=to_head.device)
        for start in range(0, len(to_head), MAX_TOKENS):
            end = start + MAX_TOKENS
            project(to_head[start:end], head, product[start:end], norm=norm, eps=eps)
        return product

    def _buffers_for(self, rows: int, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Scratch]:
        """Returns what passes between the kernels of a step with `T` tokens.

        The residual stream `[T, hidden]`; queries, keys and values `[T, (H + 2 Hkv) · D]`; what attention
        returns, `[T, H · D]`; gated values `[T, intermediate]`; partial results of attention.
        """
        from edge_tui.engine.ops.triton.attend import Scratch

        if (rows, k) not in self._buffers:
            c, embedding = self._config, self._weights.embedding
            widths = c.hidden, (c.heads + 2 * c.kv_heads) * c.head_dim, c.heads * c.head_dim, c.intermediate
            x, qkv, heads, wide = (embedding.new_empty(rows * k, width) for width in widths)
            scratch = Scratch(rows, k, c.heads, c.head_dim, embedding.device)
            self._buffers[rows, k] = x, qkv, heads, wide, scratch
        return self._buffers[rows, k]


def fuse(config: FlatConfig, weights: DecoderWeights) -> FusedStep | str:
    """Makes a model's fused step, or tells in one sentence why it has none."""
    if (reason := available()) is not None:
        return reason
    if not config.is_fusible:
        return f"{config.architecture} runs operation by operation: no fused kernels are made for it."
    packed = [matrix.packed() for matrix in weights.matrices]
    matrices = [matrix for matrix in packed if matrix is not None]
    if len(matrices) < len(packed):
        return "A matrix of this model is stored in a way that the fused kernels cannot read."
    if weights.embedding.is_cuda:
        fetch_whole_lines(weights.embedding.device)
    return FusedStep(config, weights, matrices)
