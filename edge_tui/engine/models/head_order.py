"""Reads the norms of heads, and puts the rows of queries and keys in the order that rotation here needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from edge_tui.engine.checkpoints.weights import Weights
    from edge_tui.engine.models.architectures import FlatConfig


def read_qk_norm(weights: Weights, c: FlatConfig, i: int, where: str) -> Tensor | None:
    """Reads the norms of queries and keys as `[H + Hkv, D]`, and ones for values that have a norm."""
    if not c.qk_norm:
        return None
    parts, shape = [], c.shapes[i]
    width, counts = shape.head_dim, (c.heads, shape.kv_heads)
    for name, heads in list(zip(c.layout.qk_norms, counts, strict=True))[: 1 + (shape.source == i)]:
        if "{}" in name:
            own = [f"{where}{name.format(head)}.weight" for head in range(heads)]
            parts.append(weights.stack(own, [width] * heads).view(heads, -1))
            continue
        shapes = {"head": (width,), "heads": (heads, width), "width": (heads * width,)}
        weight = weights.get(f"{where}{name}.weight", *shapes[c.qk_norm])
        parts.append(weight.view(-1, width).expand(heads, -1))
    norms = torch.cat(parts)
    if c.layout.norm_offset:
        norms = (norms.float() + c.layout.norm_offset).to(norms.dtype)
    if c.features.value_norm and shape.source == i:
        norms = torch.cat((norms, norms.new_ones(shape.kv_heads, width)))
    return norms[:, halves_order(c).to(norms.device)] if c.layout.interleaved else norms


def halves_order(c: FlatConfig) -> Tensor:
    """Returns where the numbers of a head lie in the file, int64 `[D]`.

    Rotation here pairs a number with the one half the rotated width on. Where the family pairs neighbours,
    the even ones come first and then the odd ones: the same order in queries and keys, so scores stay.
    """
    order = torch.arange(c.head_dim)
    turned = order[: c.rope.dim] if c.layout.interleaved else order[:0]
    return torch.cat((turned[::2], turned[1::2], order[len(turned) :]))


def qkv_order(c: FlatConfig) -> Tensor | None:
    """Returns where the rows of queries, keys and values lie in the file, int64; None for their own order."""
    if not (c.layout.grouped or c.layout.interleaved):
        return None
    heads = torch.arange(c.heads + 2 * c.kv_heads)
    if c.layout.grouped:
        groups = heads.view(c.kv_heads, -1)
        heads = torch.cat((groups[:, :-2].flatten(), groups[:, -2], groups[:, -1]))
    within = torch.arange(c.head_dim).repeat(len(heads), 1)
    within[: c.heads + c.kv_heads] = halves_order(c)
    return (heads[:, None] * c.head_dim + within).flatten()
