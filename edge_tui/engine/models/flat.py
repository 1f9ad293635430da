"""Computes the whole Llama family in one file of plain tensor operations: the flat decoder.

A decode step at batch 1 is a few dozen small operations, so what is spent around them decides: no modules,
no hooks, no mask where none is needed, no question to the device. Queries, keys and values come out of one
matrix, gate and up out of another.

Shapes: `R` rows, `K` positions of this call, `N = R * K`, `H` query heads, `Hkv` key heads, `G = H / Hkv`
query heads a key head serves, `D` width of a head, `S` positions attention looks at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn import functional as F

from edge_tui.decoders.base import Output
from edge_tui.engine.models.base import Caps, ContextFull, ModelInfo
from edge_tui.engine.models.cache import FlatContext
from edge_tui.engine.models.capacity import CHUNK
from edge_tui.engine.models.fused_cpu import fuse
from edge_tui.engine.models.fused_cuda import fuse as fuse_cuda
from edge_tui.engine.models.rope import tables
from edge_tui.engine.ops.norm import rms_norm
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.base import Context
    from edge_tui.engine.models.layers import DecoderWeights, Layer


class FusedStep(Protocol):
    """Appends positions in few calls."""

    def fits(self, ctx: FlatContext, k: int) -> bool:
        """Tells whether it can append `k` positions to each row."""

    def __call__(self, ctx: FlatContext, ids: Tensor) -> Tensor:
        """Appends `ids` int64 `[R, K]` to a context with room for them and returns logits `[R, K, V]`."""


@dataclass(frozen=True, slots=True)
class NewPositions:
    """Holds where a call's new positions lie, worked out once for all layers.

    Attributes:
        span: `S`.
        positions: int64 `[R, K]`; None when they are the last `K` of the span in every row.
        cos: Broadcasts to `[R, K, heads, rotary]`.
        sin: The same.
        masks: For each window of the model what to add to the scores, broadcasting to
            `[R, Hkv, K, S]`; None where nothing needs hiding.
    """

    span: int
    positions: Tensor | None
    cos: Tensor
    sin: Tensor
    masks: Mapping[int, Tensor | None]


class FlatModel:
    """Runs a checkpoint's own weights as a `LanguageModel`. `loading.load_flat` makes one.

    Attributes:
        weights: None once released.
        fused: Appends positions faster than `forward` does operation by operation; None where nothing can.
    """

    def __init__(self, config: FlatConfig, info: ModelInfo, weights: DecoderWeights) -> None:
        self.config = config
        self.info = info
        self.weights: DecoderWeights | None = weights
        self._dtype = weights.norm.dtype
        self._hidden = (config.hidden,)
        self._windows = tuple(set(config.windows))
        self._eps = torch.full((1, 1), config.eps) if info.device == "cpu" else None
        self._tables: dict[range, tuple[Tensor, Tensor]] = {}
        on_cuda = info.device.startswith("cuda")
        fused = fuse_cuda(config, weights) if on_cuda else fuse(config, weights)
        self.fused: FusedStep | None = None if isinstance(fused, str) else fused
        # Only the kernels read lengths on the device alone; plain operations get them from the host.
        reason = fused if isinstance(fused, str) else ""
        self.caps = Caps(capture=on_cuda and self.fused is not None, reason=reason)

    def open(self, rows: int, capacity: int, total: int = 0) -> FlatContext:
        """Opens an empty context for `rows` sequences of at most `capacity` positions.

        `total`, the positions that the run reaches, chooses the factors of a long rope: the short ones up to
        the length that the model was first trained on, the long ones beyond. They hold for the whole run,
        however much room there is.
        """
        c = self.config
        totals = c.rope.totals(total or capacity)
        cos_sin = self._tables.get(totals)
        if cos_sin is None or len(cos_sin[0]) < capacity:
            cos_sin = tables(c.rope, capacity, self.info.device, self._dtype, totals.start)
            self._tables[totals] = cos_sin
        cos, sin = (table[:capacity] for table in cos_sin)
        shape = c.layers, 2 * c.kv_heads, c.head_dim
        return FlatContext(rows, capacity, shape, cos, sin, totals, share=self.caps.capture)

    def notice(self, total: int) -> str:
        """Tells which factors of a long rope a run uses that reaches `total` positions."""
        rope = self.config.rope
        if rope.kind != "longrope":
            return ""
        which, what = "short", f"stay within {rope.original:,} positions"
        if total > rope.original:
            which, what = "long", f"reach {total:,} positions, beyond {rope.original:,}"
        factors = f"The {which} rotary factors of {self.info.name}"
        return f"{factors} hold for this run: prompt and new tokens {what}."

    @torch.inference_mode()
    def forward(self, ctx: Context, ids: Tensor) -> Output:
        """Appends `ids` int64 `[R, K]` to the context and returns logits `[R, K, V]`: one step.

        Raises:
            ContextFull: they do not fit.
        """
        assert isinstance(ctx, FlatContext), "a context of another model"
        rows, k = ids.shape
        ctx.reserve(k)
        if self.fused is not None and self.fused.fits(ctx, k):
            return Output(self.fused(ctx, ids))
        weights = self._present_weights()
        start = ctx.bound if ctx.uniform and ctx.on_host else None
        x = self._run(weights, ctx, ids, self.new_positions(ctx, k, start))
        ctx.advance(k)
        return Output(weights.head(self._normed(x, weights.norm)).view(rows, k, -1))

    @torch.inference_mode()
    def prefill(
        self,
        ctx: Context,
        ids: Tensor,
        chunk: int = CHUNK,
        progress: Callable[[int, int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Output:
        """Reads a prompt, in chunks, on top of what the context already holds.

        Arguments, result and errors are those of `LanguageModel.prefill`.
        """
        assert isinstance(ctx, FlatContext), "a context of another model"
        rows, total = ids.shape
        start = ctx.lengths()[0]
        assert ctx.uniform, "rows of different lengths"
        need = start + total
        if need > ctx.capacity:
            raise ContextFull(f"The prompt needs {need} positions, but the context holds {ctx.capacity}.")
        if total == 1 and ctx.replay is not None:
            ctx.reserve(1)
            return Output(ctx.replay(ids))
        if self.fused is not None and self.fused.fits(ctx, total):
            return Output(self.fused(ctx, ids)[:, -1:])
        weights = self._present_weights()
        x = torch.empty(0)
        for done in range(0, total, chunk):
            if cancelled is not None and cancelled():
                raise Cancelled
            piece = ids[:, done : done + chunk]
            k = piece.shape[1]
            x = self._run(weights, ctx, piece, self.new_positions(ctx, k, start + done))
            ctx.advance(k)
            if progress is not None:
                progress(done + k, total)
        last = x.view(rows, -1, *self._hidden)[:, -1]
        return Output(weights.head(self._normed(last, weights.norm))[:, None])

    def release(self) -> None:
        """Drops the weights; the caller returns the memory. The model is unusable afterwards."""
        self.weights = self.fused = None
        self._tables.clear()

    def _present_weights(self) -> DecoderWeights:
        if self.weights is None:
            raise RuntimeError(f"{self.info.name} has been released.")
        return self.weights

    def new_positions(self, ctx: FlatContext, k: int, start: int | None) -> NewPositions:
        """Works out positions, rotary rows and masks of `k` new positions.

        Args:
            ctx: The context they are appended to.
            k: `K`.
            start: The first position, if the host knows one for all rows.
        """
        device = ctx.length.device
        if start is not None:
            span = start + k
            cos, sin = ctx.cos[start:span, None], ctx.sin[start:span, None]
            if k == 1 or (start == 0 and all(w == 0 or k <= w for w in self._windows)):
                return NewPositions(span, None, cos, sin, dict.fromkeys(self._windows))
            positions = torch.arange(start, span, device=device)[None]
            return NewPositions(span, None, cos, sin, self._masks(positions, span))
        positions = ctx.length[:, None] + torch.arange(k, device=device)
        span = ctx.span(k)
        cos, sin = ctx.cos[positions][:, :, None], ctx.sin[positions][:, :, None]
        return NewPositions(span, positions, cos, sin, self._masks(positions, span))

    def _masks(self, positions: Tensor, span: int) -> dict[int, Tensor | None]:
        """Scores to add, `[R or 1, 1, K, S]`: 0 for what a query sees, −inf for the rest."""
        distance = positions[:, None, :, None] - torch.arange(span, device=positions.device)
        # Rows of a mask begin at multiples of 16 bytes: CUDA's kernels would copy it otherwise.
        wide = *distance.shape[:-1], -(-span // 8) * 8
        masks: dict[int, Tensor | None] = {}
        for window in self._windows:
            hidden_mask = distance < 0
            if window:
                hidden_mask |= distance >= window
            mask = torch.zeros(wide, dtype=self._dtype, device=positions.device)[..., :span]
            masks[window] = mask.masked_fill_(hidden_mask, -math.inf)
        return masks

    def _run(self, weights: DecoderWeights, ctx: FlatContext, ids: Tensor, new: NewPositions) -> Tensor:
        """Runs the layers and returns the residual stream `[N, hidden]`."""
        x = F.embedding(ids, weights.embedding).view(-1, *self._hidden).to(self._dtype)
        for i, layer in enumerate(weights.layers):
            y = self._normed(x, layer.attention_norm)
            y = self._attention(ctx, i, layer, layer.qkv(y).view(*ids.shape, -1, self.config.head_dim), new)
            x = layer.out(y).add_(x)
            y = self._normed(x, layer.mlp_norm)
            gate, up = layer.gate_up(y).chunk(2, -1)
            x = layer.down(F.silu(gate).mul_(up)).add_(x)
        return x

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Applies a root mean square norm to `[N, hidden]`."""
        if self._eps is None:
            return F.rms_norm(x, self._hidden, weight, self.config.eps)
        return rms_norm(x, weight, self._eps)

    def _attention(self, ctx: FlatContext, i: int, layer: Layer, qkv: Tensor, new: NewPositions) -> Tensor:
        """Stores the new keys and values and attends. `qkv`: `[R, K, H + 2 Hkv, D]`, overwritten."""
        rows, k, _, d = qkv.shape
        h, h_kv = self.config.heads, self.config.kv_heads
        qk = qkv[:, :, : h + h_kv]
        if layer.qk_norm is not None:
            torch.mul(F.rms_norm(qk, (d,), None, self.config.eps), layer.qk_norm, out=qk)
        rotate(qk, new.cos, new.sin)
        kv, new_kv = ctx.kv[i], qkv[:, :, h:]
        if new.positions is None:
            kv[:, :, new.span - k : new.span].copy_(new_kv.transpose(1, 2))
        else:
            kv[torch.arange(rows, device=kv.device)[:, None], :, new.positions] = new_kv
        first, mask = 0, new.masks[layer.window]
        if k == 1 and new.positions is None and layer.window:
            first = max(0, new.span - layer.window)
        keys, values = kv[:, :, first : new.span].chunk(2, 1)
        if k == 1:
            # One position: the queries that share a key head stand in line as if they were positions.
            q = qkv[:, 0, :h].view(rows, h_kv, h // h_kv, d)
            return F.scaled_dot_product_attention(q, keys, values, attn_mask=mask).reshape(rows, -1)
        q = qkv[:, :, :h].transpose(1, 2)
        if mask is None:
            y = F.scaled_dot_product_attention(q, keys, values, is_causal=True, enable_gqa=h != h_kv)
        else:
            # Key heads as if they were rows, so that neither they nor the mask are repeated for each query.
            row_mask = mask.expand(rows, -1, -1, -1)
            y = torch.stack(
                [
                    F.scaled_dot_product_attention(
                        q[row].view(h_kv, -1, k, d),
                        keys[row][:, None].expand(-1, h // h_kv, -1, -1),
                        values[row][:, None].expand(-1, h // h_kv, -1, -1),
                        attn_mask=row_mask[row : row + 1],
                    ).flatten(0, 1)
                    for row in range(rows)
                ]
            )
        return y.transpose(1, 2).reshape(rows * k, -1)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Rotates `[R, K, heads, D]` in place by tables of `rope.tables`; what they do not reach stays."""
    turning = heads[..., : cos.shape[-1]]
    half = turning.roll(cos.shape[-1] // 2, -1)
    turning.mul_(cos).addcmul_(half, sin)
