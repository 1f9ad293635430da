"""Runs a decode step on the CPU as one TorchScript call, which never waits for Python's lock.

Each tensor operation called from Python gives the interpreter lock away and takes it back; while another
thread paints, each of a step's hundred operations may have to wait for it. The same operations as one
TorchScript function run without the lock from the first to the last. They are those of `flat`, in the same
order, so results are the same to the last bit.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from edge_tui.engine.models.features import LLAMA
from edge_tui.engine.ops.cpu.fbgemm import Opaque
from edge_tui.engine.ops.cpu.fine_columns import spread
from edge_tui.engine.ops.cpu.project import project
from edge_tui.engine.ops.cpu.torchscript import as_written, own_in_cpp, script
from edge_tui.engine.ops.linear import CpuLinear, PlainLinear
from edge_tui.engine.ops.norm import rms_norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.cache import FlatContext
    from edge_tui.engine.models.layer_states import LayerStates
    from edge_tui.engine.models.layers import DecoderWeights


class FusedStep:
    """Appends one position to each row. `fuse` makes one.

    Args:
        run: `_step`, compiled.
        weights: Its arguments that are the same in every call, in order.
    """

    most_rows = sys.maxsize

    def __init__(self, run: Callable[..., Tensor], weights: tuple[Any, ...]) -> None:
        self._run = run
        self._weights = weights
        flat = [one for w in weights for one in (w if isinstance(w, list) else [w])]
        self._cpp_refs = own_in_cpp(one for one in flat if isinstance(one, torch.Tensor))

    def fits(self, ctx: FlatContext, k: int) -> bool:
        """Tells whether it can append `k` positions to each row."""
        return k == 1 and ctx.on_host

    def __call__(self, ctx: FlatContext, ids: Tensor, states: LayerStates | None = None) -> Tensor:
        """Appends `ids` int64 `[R, 1]` to a context with room for them.

        Returns:
            Logits `[R, 1, V]`; with `states` the head's product `[(E + 1) * R, 1, V]`.
        """
        starts = [ctx.bound] if ctx.uniform else ctx.lengths()
        given = (states.slots, states.layers, states.early, states.normed) if states else (None, [], 0, True)
        with as_written():
            logits = self._run(ids, ctx.length, ctx.block, ctx.cos, ctx.sin, starts, *given, *self._weights)
        ctx.count_on_host(1)
        return logits


def fuse(config: FlatConfig, w: DecoderWeights) -> FusedStep | None:
    """Makes a model's fused step.

    Returns:
        None off the CPU, with matrices in bitsandbytes' format, or for features that are not Llama's.
    """
    if config.features != LLAMA or config.qk_norm == "width":
        return None
    layers, matrices = w.layers, [m for m in w.matrices if isinstance(m, PlainLinear | CpuLinear)]
    run = compiled_step()
    if run is None or w.embedding.device.type != "cpu" or len(matrices) < len(w.matrices):
        return None
    norms = [norm.weight for norm in w.norms]
    fine = w.head.fine if isinstance(w.head, CpuLinear) else None
    weights = (
        w.embedding,
        norms[:-1:2],
        [layer.qk_norm for layer in layers],
        norms[1::2],
        [m.kind for m in matrices],
        [m.weight for m in matrices],
        [m.scales for m in matrices],
        [m.bias for m in matrices],
        [m.opaque if isinstance(m, CpuLinear) else None for m in matrices],
        [layer.window for layer in layers],
        norms[-1],
        *(fine or (None, None)),
        config.heads,
        config.kv_heads,
        config.eps,
    )
    return FusedStep(run, weights)


@cache
def compiled_step() -> Callable[..., Tensor] | None:
    """Compiles `_step` once a process; None where this torch cannot."""
    return script(_step)


def _step(
    ids: torch.Tensor,
    length: torch.Tensor,
    block: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    starts: list[int],
    slots: torch.Tensor | None,
    slot_layers: list[int],
    early: int,
    early_norm: bool,
    embedding: torch.Tensor,
    attention_norms: list[torch.Tensor],
    qk_norms: list[torch.Tensor | None],
    mlp_norms: list[torch.Tensor],
    kinds: list[str],
    weights: list[torch.Tensor],
    scales: list[torch.Tensor | None],
    biases: list[torch.Tensor | None],
    opaque: list[Opaque | None],
    windows: list[int],
    norm: torch.Tensor,
    fine_columns: torch.Tensor | None,
    fine_factors: torch.Tensor | None,
    heads: int,
    kv_heads: int,
    eps: float,
) -> torch.Tensor:
    """Computes `FlatModel.forward` for `K = 1`, in the part of Python that TorchScript knows.

    Matrices come four a layer: QKV, output, gate and up, down; the last one is the head. `starts` are the
    rows' lengths, or one for all. `slots` and what follows are the fields of `LayerStates`, the head's
    `fine_columns` and `fine_factors` those of `FineColumns`.
    """
    rows, hidden, head_dim, rotary = ids.size(0), embedding.size(1), block.size(4), cos.size(1)
    start, level = starts[0], len(starts) == 1
    if level:
        cos, sin = cos.narrow(0, start, 1), sin.narrow(0, start, 1)
    else:
        cos, sin = cos.index_select(0, length).unsqueeze(1), sin.index_select(0, length).unsqueeze(1)
    x = torch.embedding(embedding, ids).view(rows, hidden).to(norm.dtype)
    tiny = torch.full([1, 1], eps)
    for i in range(block.size(0)):
        if slots is not None:
            for slot, wanted in enumerate(slot_layers):
                if wanted == i:
                    slots.select(0, slot).copy_(x)
        m, kv = 4 * i, block.select(0, i)
        y = rms_norm(x, attention_norms[i], tiny)
        qkv = project(y, kinds[m], weights[m], scales[m], biases[m], opaque[m]).view(rows, -1, head_dim)
        qk = qkv.narrow(1, 0, heads + kv_heads)
        qk_norm = qk_norms[i]
        if qk_norm is not None:
            torch.mul(torch.rms_norm(qk, [head_dim], None, eps), qk_norm, out=qk)
        turning = qk.narrow(2, 0, rotary)
        half = turning.roll(rotary // 2, -1)
        turning.mul_(cos).addcmul_(half, sin)
        queries = qkv.narrow(1, 0, heads).view(rows, kv_heads, heads // kv_heads, head_dim)
        new_kv = qkv.narrow(1, heads, 2 * kv_heads)
        if level:
            kv.select(2, start).copy_(new_kv)
            y = attend(queries, kv, start, windows[i], kv_heads)
        else:
            each: list[torch.Tensor] = []
            for row in range(rows):
                own = kv.narrow(0, row, 1)
                own.select(2, starts[row]).copy_(new_kv.narrow(0, row, 1))
                each.append(attend(queries.narrow(0, row, 1), own, starts[row], windows[i], kv_heads))
            y = torch.cat(each)
        m += 1
        x = project(y.reshape(rows, -1), kinds[m], weights[m], scales[m], biases[m], opaque[m]).add_(x)
        y = rms_norm(x, mlp_norms[i], tiny)
        m += 1
        gate, up = project(y, kinds[m], weights[m], scales[m], biases[m], opaque[m]).chunk(2, -1)
        y = torch.ops.aten.silu(gate).mul_(up)
        m += 1
        x = project(y, kinds[m], weights[m], scales[m], biases[m], opaque[m]).add_(x)
    length.add_(1)
    x = rms_norm(x, norm, tiny)
    if slots is not None:
        first = slots.size(0) - 1 - early
        slots.select(0, slots.size(0) - 1).copy_(x)
        if early > 0 and early_norm:
            states = slots.narrow(0, first, early)
            states.copy_(rms_norm(states.view(-1, hidden), norm, tiny).view(early, rows, hidden))
        x = slots.narrow(0, first, early + 1).view(-1, hidden)
        rows = x.size(0)
    if fine_columns is not None and fine_factors is not None:
        x = spread(x, fine_columns, fine_factors)
    return project(x, kinds[-1], weights[-1], scales[-1], biases[-1], opaque[-1]).view(rows, 1, -1)


def attend(queries: torch.Tensor, kv: torch.Tensor, start: int, window: int, kv_heads: int) -> torch.Tensor:
    """Attends from position `start` of rows `[R, Hkv, G, D]`; `kv` `[R, 2 * Hkv, capacity, D]`."""
    first = max(0, start + 1 - window) if window > 0 else 0
    visible = kv.narrow(2, first, start + 1 - first)
    keys, values = visible.narrow(1, 0, kv_heads), visible.narrow(1, kv_heads, kv_heads)
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)
