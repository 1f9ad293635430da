"""Computes every family of the flat tier in one file of plain tensor operations: the flat decoder.

A decode step at batch 1 is a few dozen small operations, so what is spent around them decides: no modules,
no hooks, no mask where none is needed, no question to the device. Queries, keys and values come out of one
matrix, gate and up out of another.

Shapes: `R` rows, `K` positions of this call, `N = R * K`, `H` query heads, `Hkv` key heads, `G = H / Hkv`
query heads a key head serves, `D` width of a head, `S` positions attention looks at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from edge_tui.decoders.base import Output
from edge_tui.engine.models.attention import attend, attend_by_row, hides_later_keys, store
from edge_tui.engine.models.base import Caps, ContextFull, ModelInfo
from edge_tui.engine.models.cache import FlatContext
from edge_tui.engine.models.capacity import CHUNK
from edge_tui.engine.models.feed_forward import FeedForward
from edge_tui.engine.models.fused_cpu import fuse
from edge_tui.engine.models.fused_cuda import MAX_TOKENS
from edge_tui.engine.models.fused_cuda import fuse as fuse_cuda
from edge_tui.engine.models.layer_states import LayerStates, PastStates
from edge_tui.engine.models.masks import Masks, NewPositions, alibi_slopes
from edge_tui.engine.models.per_layer import PerLayer
from edge_tui.engine.models.rope import rotate, tables
from edge_tui.engine.ops.current_device import on_own_device
from edge_tui.engine.ops.linear import PlainLinear
from edge_tui.engine.ops.norm import rms_norm
from edge_tui.engine.ops.packed_linear import GroupLinear
from edge_tui.engine.ops.triton.availability import available, is_gpu
from edge_tui.errors import Cancelled

if TYPE_CHECKING:
    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.base import Context
    from edge_tui.engine.models.layers import DecoderWeights, Layer, Norm


class FusedStep(Protocol):
    """Appends positions in few calls."""

    most_rows: int
    """Most rows that one call takes, each of its own length."""

    def fits(self, ctx: FlatContext, k: int) -> bool:
        """Tells whether it can append `k` positions to each row."""

    def __call__(self, ctx: FlatContext, ids: Tensor, states: LayerStates | None = None) -> Tensor:
        """Appends `ids` int64 `[R, K]` to a context with room for them and returns logits `[R, K, V]`.

        With `states` it fills their slots, and returns the head's product `[(E + 1) * R * K, 1, V]`.
        """


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
        self._dtype = weights.dtype
        # As transformers has it: the factor is a number of the compute dtype.
        self._embedding_scale = float(torch.tensor(config.features.embedding_scale).to(self._dtype))
        self._hidden = (config.hidden,)
        slopes = alibi_slopes(config.heads).to(info.device) if config.features.alibi else None
        self._shapes = config.shapes
        hidden = hides_later_keys(weights.embedding.device, self._dtype, config.widest_head)
        self._masks = Masks(frozenset(config.windows), self._dtype, slopes, config.head_dim**-0.5, hidden)
        local = config.features.local_rope
        self._rotary_parts = (
            slice(0, config.rope.dim),
            slice(config.rope.dim, config.rope.dim + (local.dim if local else 0)),
        )
        self._eps = torch.full((1, 1), config.eps) if info.device == "cpu" else None
        self._tables: dict[range, tuple[Tensor, Tensor]] = {}
        on_cuda = is_gpu(info.device)
        kernels = on_cuda and available() is None
        self._feed_forward = FeedForward(config.features, kernels)
        self._per_layer = PerLayer(config)
        fused = fuse_cuda(config, weights) if on_cuda else fuse(config, weights)
        self.fused: FusedStep | None = None if isinstance(fused, str) else fused
        # Plain operations are captured where no kernels take their place: their attention then spans the
        # whole context.
        plain = all(isinstance(matrix, PlainLinear | GroupLinear) for matrix in weights.matrices)
        stays = config.features.mixture is None or kernels  # plain operations ask which experts were chosen
        self._whole = on_cuda and self.fused is None and plain and stays
        reason = fused if isinstance(fused, str) else ""
        capture = on_cuda and (self.fused is not None or self._whole)
        self.caps = Caps(
            capture=capture,
            reason=reason,
            mixes=config.embedding_width == config.hidden,
            unequal_rows=sys.maxsize,
        )
        if self.fused is not None:
            self.caps = replace(
                self.caps,
                kernels="fused" if on_cuda else "one compiled call",
                unequal_rows=self.fused.most_rows,
            )

    @on_own_device
    def open(self, rows: int, capacity: int, total: int = 0, past: bool = False) -> FlatContext:
        """Opens an empty context for `rows` sequences of at most `capacity` positions.

        `total`, the positions that the run reaches, chooses the factors of a long rope: the short ones up to
        the length that the model was first trained on, the long ones beyond. They hold for the whole run,
        however much room there is.
        """
        c = self.config
        totals = c.rope.totals(total or capacity)
        cos_sin = self._tables.get(totals)
        if cos_sin is None or len(cos_sin[0]) < capacity:
            ropes = [c.rope, *([c.features.local_rope] if c.features.local_rope else [])]
            each = [tables(rope, capacity, self.info.device, self._dtype, totals.start) for rope in ropes]
            cos_sin = torch.cat([cos for cos, _ in each], -1), torch.cat([sin for _, sin in each], -1)
            self._tables[totals] = cos_sin
        cos, sin = (table[:capacity] for table in cos_sin)
        layers = tuple((shape.source, 2 * shape.kv_heads, shape.head_dim) for shape in self._shapes)
        share = self.caps.capture and not self._whole  # only the kernels read from two places
        context = FlatContext(rows, capacity, layers, cos, sin, totals, share, self._whole)
        if past:
            context.past = PastStates(cos.new_zeros(rows, capacity, c.embedding_width))
        return context

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
    @on_own_device
    def forward(self, ctx: Context, ids: Tensor) -> Output:
        """Appends `ids` int64 `[R, K]` to the context and returns logits `[R, K, V]`: one step.

        Raises:
            ContextFull: they do not fit.
        """
        assert isinstance(ctx, FlatContext), "a context of another model"
        rows, k = ids.shape
        ctx.reserve(k)
        states = self._states(ctx, k)
        if self.fused is not None and self.fused.fits(ctx, k):
            return ctx.output(states, self.fused(ctx, ids, states))
        weights = self._present_weights()
        start = ctx.bound if ctx.uniform and ctx.on_host else None
        few = k <= MAX_TOKENS
        x = self._run(weights, ctx, ids, self.new_positions(ctx, k, start), few, states)
        ctx.advance(k)
        x = self._read_by_head(weights, x)
        if states is not None:
            to_head = states.finish(x, partial(self._read_by_head, weights, normed=states.normed))
            return ctx.output(states, self._logits(weights, to_head))
        logits = self._logits(weights, x).view(rows, k, -1)
        return Output(logits if ctx.logits_out is None else ctx.logits_out.copy_(logits))

    @torch.inference_mode()
    @on_own_device
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
        if total == 1 and ctx.replay is not None and not ctx.needs.layers:
            ctx.reserve(1)
            return Output(ctx.replay(ids))
        states = self._states(ctx, 1)
        # One position is read as a step is. Two to eight would have kernels of their own, to compile first.
        if total == 1 and self.fused is not None and self.fused.fits(ctx, 1):
            return ctx.output(states, self.fused(ctx, ids, states)).last()
        weights = self._present_weights()
        x = torch.empty(0)
        for done in range(0, total, chunk):
            if cancelled is not None and cancelled():
                raise Cancelled
            piece = ids[:, done : done + chunk]
            k = piece.shape[1]
            x = self._run(weights, ctx, piece, self.new_positions(ctx, k, start + done), k == 1, states)
            ctx.advance(k)
            if ctx.past is not None:
                ctx.past.append(self._read_by_head(weights, x), ctx.length, k)
            if progress is not None:
                progress(done + k, total)
        last = self._read_by_head(weights, x.view(rows, -1, *self._hidden)[:, -1])
        if states is None:
            return Output(self._logits(weights, last)[:, None])
        to_head = states.finish(last, partial(self._read_by_head, weights, normed=states.normed))
        return states.output(self._logits(weights, to_head), ctx.past, ctx.length)

    @on_own_device
    def release(self) -> None:
        """Drops the weights; the caller returns the memory. The model is unusable afterwards."""
        self.weights = self.fused = None
        self._tables.clear()

    def _states(self, ctx: FlatContext, k: int) -> LayerStates | None:
        """Returns the buffers of what a forward of `k` positions gives beside logits; None if nothing."""
        if not ctx.needs.layers and ctx.past is None:
            return None
        key = ctx.needs, k
        if key not in ctx.states:
            c, keeps_past = self.config, ctx.past is not None
            widths = c.hidden, c.embedding_width
            ctx.states[key] = LayerStates(ctx.needs, ctx.rows, k, c.layers, ctx.cos, *widths, keeps_past)
        return ctx.states[key]

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
            if not self._masks.needed(start, k):
                return NewPositions(span, None, cos, sin, dict.fromkeys(self._masks.windows))
            positions = torch.arange(start, span, device=device)[None]
            return NewPositions(span, None, cos, sin, self._masks.make(positions, span))
        positions = ctx.length[:, None] + torch.arange(k, device=device)
        span = ctx.span(k)
        cos, sin = ctx.cos[positions][:, :, None], ctx.sin[positions][:, :, None]
        masks = self._masks
        if k == 1 and ctx.on_host and not masks.needed(0, k):
            return NewPositions(span, positions, cos, sin, dict.fromkeys(masks.windows), ctx.lengths())
        return NewPositions(span, positions, cos, sin, masks.make(positions, span))

    def _run(
        self,
        weights: DecoderWeights,
        ctx: FlatContext,
        ids: Tensor,
        new: NewPositions,
        few: bool,
        states: LayerStates | None = None,
    ) -> Tensor:
        """Runs the layers and returns the residual stream `[N, hidden]`; `states` gets it between layers.

        `few`: As of `FeedForward` and `Linear`.
        """
        f = self.config.features
        x = self._embedded(weights, ids, new)
        inputs = self._per_layer.inputs(weights.inputs, x, ids, few) if weights.inputs else None
        for i, layer in enumerate(weights.layers):
            if states is not None:
                states.write(i, x)
            y = self._normed(x, layer.attention_norm)
            heads = layer.qkv(y, few).view(*ids.shape, -1, self._shapes[i].head_dim)
            added = layer.out(self._attention(ctx, i, layer, heads, new), few)
            del heads  # as large as everything else that a long chunk makes of attention
            if f.parallel:
                y = y if layer.mlp_norm is None else self._normed(x, layer.mlp_norm)
                x = self._add(x, added.add_(self._feed_forward(layer, y, few)), None)
                continue
            x = self._add(x, added, layer.attention_post_norm)
            y = self._normed(x, layer.mlp_norm)
            x = self._add(x, self._feed_forward(layer, y, few), layer.mlp_post_norm)
            if layer.input is not None and inputs is not None:
                x = self._add(x, self._per_layer.added(layer.input, x, inputs[:, i], few), layer.input.norm)
            if layer.scale is not None:
                x.mul_(layer.scale)
        return x

    def _read_by_head(self, weights: DecoderWeights, x: Tensor, normed: bool = True) -> Tensor:
        """Makes what the head multiplies of the residual stream `[N, hidden]`: `[N, embedding_width]`."""
        x = self._normed(x, weights.norm) if normed else x
        return x if weights.project_out is None else F.linear(x, weights.project_out)

    def _embedded(self, weights: DecoderWeights, ids: Tensor, new: NewPositions) -> Tensor:
        """Looks up embedding and learned positions, `[N, hidden]`."""
        x = F.embedding(ids, weights.embedding).to(self._dtype)
        if self._embedding_scale != 1.0:
            x *= self._embedding_scale
        if weights.project_in is not None:
            x = F.linear(x, weights.project_in)
        if weights.positions is not None:
            learned = weights.positions[self.config.features.position_offset :]
            at = new.positions
            if at is None:
                at = torch.arange(new.span - ids.shape[1], new.span, device=ids.device)
            x += learned[at.clamp(max=len(learned) - 1)]  # steps ahead of a run's end may lie beyond
        return x.view(-1, *self._hidden)

    def _add(self, x: Tensor, added: Tensor, norm: Norm | None) -> Tensor:
        """Adds to the residual stream, in place of what is added; the norm is of that or of the sum."""
        f = self.config.features
        added = added if f.norm_place == "sum" else self._normed(added, norm)
        x = (added if f.residual_scale == 1.0 else added.mul_(f.residual_scale)).add_(x)
        return self._normed(x, norm) if f.norm_place == "sum" else x

    def _logits(self, weights: DecoderWeights, x: Tensor) -> Tensor:
        """Computes logits `[N, V]` of the residual stream after the final norm."""
        f = self.config.features
        z = weights.head(x, few=True)
        if f.logit_scale != 1.0:
            z *= f.logit_scale
        if f.logit_cap:
            z = z.div_(f.logit_cap).tanh_().mul_(f.logit_cap)
        return z

    def _normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        """Applies a norm to `[N, hidden]`; without one it is the input itself."""
        if norm is None:
            return x
        if self.config.features.norm == "layer":
            return F.layer_norm(x, self._hidden, norm.weight, norm.bias, self.config.eps)
        if self._eps is None:
            return F.rms_norm(x, self._hidden, norm.weight, self.config.eps)
        return rms_norm(x, norm.weight, self._eps)

    def _norm_heads(self, qk: Tensor, weight: Tensor) -> None:
        """Normalises queries and keys `[R, K, H + Hkv, D]` in place."""
        c = self.config
        parts: tuple[tuple[Tensor, Tensor], ...] = ((qk, weight),)
        if whole := c.qk_norm == "width":
            h = c.heads
            parts = (qk[:, :, :h], weight[:h]), (qk[:, :, h:], weight[h:])
        for part, w in parts:
            flat = part.flatten(-2) if whole else part
            width = flat.shape[-1:]
            if c.features.norm == "layer":
                normed = F.layer_norm(flat, width, None, None, c.eps)
            else:
                normed = F.rms_norm(flat, width, None, c.eps)
            torch.mul(normed.view(part.shape), w, out=part)

    def _attention(self, ctx: FlatContext, i: int, layer: Layer, qkv: Tensor, new: NewPositions) -> Tensor:
        """Stores the new keys and values and attends. `qkv`: `[R, K, H + 2 Hkv, D]`, overwritten.

        It lacks values where keys are values, and both where they are an earlier layer's.
        """
        rows, k = qkv.shape[:2]
        shape, h = self._shapes[i], self.config.heads
        if shape.keys_are_values:
            qkv = torch.cat((qkv, qkv[:, :, h:]), 2)
        qk = qkv[:, :, : h + shape.kv_heads]
        if layer.qk_norm is not None:
            self._norm_heads(qkv[:, :, : len(layer.qk_norm)], layer.qk_norm)
        which = self.config.features.rotary[i] if self.config.features.rotary else 0
        if which >= 0:
            part = self._rotary_parts[which]
            rotate(qk, new.cos[..., part], new.sin[..., part])
        kv, new_kv = ctx.kv[i], qkv[:, :, h:] if shape.source == i else None
        f, q = self.config.features, qkv[:, :, :h]
        numbers = f.attention_scale or None, f.score_cap, layer.sinks
        if new.starts is not None:
            return attend_by_row(q, kv, new_kv, new.starts, layer.window, *numbers).view(rows, -1)
        if new_kv is not None:
            store(kv, new_kv, new.positions, new.span)
        first, mask = 0, new.masks[layer.window]
        if k == 1 and mask is None and layer.window:
            first = max(0, new.span - layer.window)
        keys, values = kv[:, :, first : new.span].chunk(2, 1)
        return attend(q, keys, values, mask, *numbers).reshape(rows * k, -1)
