"""Runs a decode step on an NVIDIA GPU as five kernels a layer, and some more where a family has more.

norm + QKV · rotary, cache and attention · output + residual · norm + gate, up and their product · down +
residual. A norm after attention or feed-forward layer is a kernel between these, so is one of several tokens
before codes in groups (`triton.project_groups`), and a mixture of experts is several. Lengths are read from
the device, so the step means the same wherever the rows have got to, and a graph of it can be replayed for
ever. Everything between the kernels, but such tokens under a norm, lies in buffers allocated once.
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
    from edge_tui.engine.models.layers import DecoderWeights, Norm
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
        mixture, scale = config.features.mixture, config.features.residual_scale
        self._mixture = None if mixture is None else FusedMixture(mixture, scale)
        # As in `flat`: the factor is a number of the compute dtype.
        self._embedding_scale = float(torch.tensor(config.features.embedding_scale).to(weights.dtype))
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Scratch]] = {}

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
        from edge_tui.engine.ops.triton.norms import norm_heads
        from edge_tui.engine.ops.triton.project import embed, project

        c, f, w = self._config, self._config.features, self._weights
        rows, k = ids.shape
        x, qkv, heads, wide, added, scratch = self._buffers_for(rows, k)
        stream = x if states is None else states.place(0, x)
        embed(ids.reshape(-1), w.embedding, stream, self._embedding_scale)
        turns = self._angles(ctx)
        branch = None
        matrices = iter(self._matrices)
        for i, layer in enumerate(w.layers):
            to_qkv, to_out, *feed_forward = (next(matrices) for _ in layer.matrices)
            project(stream, to_qkv, qkv, norm=_weight(layer.attention_norm), eps=c.eps)
            qk_norm = layer.qk_norm
            over_heads = qk_norm is not None and c.qk_norm == "width"
            if qk_norm is not None and over_heads and k > 1:
                norm_heads(qkv, qk_norm, c.eps, c.kv_heads)
                qk_norm, over_heads = None, False
            attend(
                qkv,
                *ctx.sources(i),
                ctx.length,
                *turns[f.rotary[i] if f.rotary else 0],
                heads,
                scratch,
                heads=c.heads,
                kv_heads=c.kv_heads,
                k=k,
                qk_norm=qk_norm,
                over_heads=over_heads,
                sinks=layer.sinks,
                eps=c.eps,
                window=layer.window,
                scale=f.attention_scale,
                cap=f.score_cap,
            )
            if i == c.layers - 1:
                branch = fork()
            self._add(heads, to_out, layer.attention_post_norm, stream, added, x)
            norm, stream = _weight(layer.mlp_norm), x if states is None else states.place(i + 1, x)
            if self._mixture is not None and layer.experts is not None:
                assert norm is not None, "a mixture without a norm before it"
                self._mixture(layer, feed_forward, x, norm, c.eps, stream)
                continue
            to_wide, to_down = feed_forward
            project(x, to_wide, wide, norm=norm, eps=c.eps, gate=f.activation)
            self._add(wide, to_down, layer.mlp_post_norm, x, added, stream)
        if states is None:
            logits = ctx.logits_out
            if logits is None:
                logits = torch.empty(rows, k, self._matrices[-1].rows, dtype=torch.float32, device=ids.device)
            self._to_logits(x, logits.view(rows * k, -1), _weight(w.norm))
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
        weight = _weight(self._weights.norm)
        assert weight is not None, "a head without a norm before it"

        def normed(rows: Tensor) -> Tensor:
            return F.rms_norm(rows, weight.shape, weight, self._config.eps)

        states.share()
        to_head = states.to_head
        norm: Tensor | None = weight
        if states.reads_last or not states.normed:
            to_head, norm = states.finish(normed(states.slots[-1]), normed), None
        product = states.product
        if product is None:
            vocab = self._matrices[-1].rows
            product = torch.empty(len(to_head), vocab, dtype=torch.float32, device=to_head.device)
        for start in range(0, len(to_head), MAX_TOKENS):
            end = start + MAX_TOKENS
            self._to_logits(to_head[start:end], product[start:end], norm)
        return product

    def _to_logits(self, x: Tensor, out: Tensor, norm: Tensor | None) -> None:
        """Multiplies the head by `x` `[N, hidden]` under a norm: `[N, V]`."""
        from edge_tui.engine.ops.triton.project import project

        f, head = self._config.features, self._matrices[-1]
        project(x, head, out, norm=norm, eps=self._config.eps, factor=f.logit_scale, cap=f.logit_cap)

    def _add(
        self, y: Tensor, matrix: PackedMatrix, norm: Norm | None, stream: Tensor, added: Tensor, out: Tensor
    ) -> None:
        """Writes `out`, the stream plus a product, which a norm may follow; `added` holds it before."""
        from edge_tui.engine.ops.triton.norms import add_normed
        from edge_tui.engine.ops.triton.project import project

        if norm is None:
            project(y, matrix, out, residual=stream, factor=self._config.features.residual_scale)
        else:
            project(y, matrix, added)
            add_normed(added, norm.weight, self._config.eps, stream, out)

    def _angles(self, ctx: FlatContext) -> dict[int, tuple[Tensor, Tensor]]:
        """Returns cosines and sines by the numbers of `Features.rotary`."""
        own = self._config.rope.dim
        parts = {0: slice(own), 1: slice(own, None), -1: slice(0)}
        return {which: (ctx.cos[:, part], ctx.sin[:, part]) for which, part in parts.items()}

    def _buffers_for(self, rows: int, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Scratch]:
        """Returns what passes between the kernels of a step with `T` tokens.

        The residual stream `[T, hidden]`; queries, keys and values `[T, (H + 2 Hkv) · D]`; what attention
        returns, `[T, H · D]`; gated values `[T, intermediate]`; what a norm is to follow, `[T, hidden]`;
        partial results of attention.
        """
        from edge_tui.engine.ops.triton.attend import Scratch

        if (rows, k) not in self._buffers:
            c, embedding = self._config, self._weights.embedding
            widths = c.hidden, (c.heads + 2 * c.kv_heads) * c.head_dim, c.heads * c.head_dim, c.intermediate
            x, qkv, heads, wide = (embedding.new_empty(rows * k, width) for width in widths)
            scratch = Scratch(rows, k, c.heads, c.head_dim, embedding.device)
            self._buffers[rows, k] = x, qkv, heads, wide, torch.empty_like(x), scratch
        return self._buffers[rows, k]


def _weight(norm: Norm | None) -> Tensor | None:
    return None if norm is None else norm.weight


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
