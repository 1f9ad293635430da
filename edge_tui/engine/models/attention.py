"""Attends to cached keys and values with plain tensor operations.

Shapes: `R` rows, `K` positions of this call, `H` query heads, `Hkv` key heads, `S` positions that
attention looks at, `D` width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from edge_tui.engine.models.capacity import SLICE
from edge_tui.engine.models.mask_need import flash_runs


@cache
def hides_later_keys(device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Tells whether torch's flash kernel runs, which hides the keys after each query without a mask.

    cuDNN's kernel, which torch prefers on Hopper, is planned anew for each number of queries and keys: tens
    of milliseconds for each chunk of a prompt whose length is new, and more for the first of a process.
    """
    kernels = device.type == "cuda" and torch.backends.cuda.is_flash_attention_available()
    return kernels and flash_runs(torch.cuda.get_device_capability(device), dtype.itemsize, head_dim)


def attend(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float | None = None,
    cap: float = 0.0,
    sinks: Tensor | None = None,
) -> Tensor:
    """Computes softmax(cap(q kᵀ · scale) + mask) v.

    Args:
        q: `[R, K, H, D]`.
        keys: `[R, Hkv, S, D]`.
        values: The same.
        mask: Summand of scores, broadcasting to `[R, H, K, S]`; None hides what comes after each query,
            the last of which is at the last of the keys. With fewer queries than keys, but for one, it may be
            None where `hides_later_keys`.
        scale: Factor on scores; None means `1 / sqrt(D)`.
        cap: Scores become `cap * tanh(scores / cap)` before the mask; 0 leaves them.
        sinks: `[H]`, for each query head a score more in the softmax, of a key that has no value.

    Returns:
        `[R, K, H, D]`.
    """
    rows, k, h, d = q.shape
    h_kv = keys.shape[1]
    if cap or sinks is not None:
        return _attend_sliced(q, keys, values, mask, d**-0.5 if scale is None else scale, cap, sinks)
    if k == 1:
        # One position: the queries that share a key head stand in line as if they were positions.
        one = q.view(rows, h_kv, h // h_kv, d)
        of_heads = None if mask is None else _by_key_head(mask, h_kv).squeeze(3)
        y = F.scaled_dot_product_attention(one, keys, values, attn_mask=of_heads, scale=scale)
        return y.reshape(q.shape)
    q = q.transpose(1, 2)
    if mask is None:
        if hides_later_keys(q.device, q.dtype, d):
            flash = torch.ops.aten._scaled_dot_product_flash_attention
            y = flash(q, keys, values, is_causal=True, scale=scale)[0]
        else:
            y = F.scaled_dot_product_attention(
                q, keys, values, is_causal=True, enable_gqa=h != h_kv, scale=scale
            )
        return y.transpose(1, 2)
    # Key heads as if they were rows, so that neither they nor the mask are repeated for each query.
    row_mask = _by_key_head(mask, h_kv).expand(rows, -1, -1, -1, -1)
    y = torch.stack(
        [
            F.scaled_dot_product_attention(
                q[row].view(h_kv, -1, k, d),
                keys[row][:, None].expand(-1, h // h_kv, -1, -1),
                values[row][:, None].expand(-1, h // h_kv, -1, -1),
                attn_mask=row_mask[row],
                scale=scale,
            ).flatten(0, 1)
            for row in range(rows)
        ]
    )
    return y.transpose(1, 2)


def store(kv: Tensor, new_kv: Tensor, positions: Tensor | None, span: int) -> None:
    """Puts the keys and values of new positions `[R, K, 2 * Hkv, D]` into `kv`, `[R, 2 * Hkv, capacity, D]`.

    `positions`: int64 `[R, K]`; None for the last `K` of the span in every row.
    """
    if positions is None:
        kv[:, :, span - new_kv.shape[1] : span].copy_(new_kv.transpose(1, 2))
    else:
        kv[torch.arange(len(kv), device=kv.device)[:, None], :, positions] = new_kv


def attend_by_row(
    q: Tensor,
    kv: Tensor,
    new_kv: Tensor | None,
    starts: Sequence[int],
    window: int,
    scale: float | None,
    cap: float,
    sinks: Tensor | None,
) -> Tensor:
    """Stores one new position of each row and computes `attend` for rows of different lengths.

    Args:
        q: `[R, 1, H, D]`.
        kv: `[R, 2 * Hkv, capacity, D]`, keys first; `new_kv` is written to it.
        new_kv: `[R, 1, 2 * Hkv, D]`; None where an earlier layer has stored it.
        starts: The new position of each row.
        window: Positions that a query sees, its own included; 0 means all.
        scale: As in `attend`, like the rest.
        cap: The same.
        sinks: The same.

    Returns:
        `[R, 1, H, D]`.
    """
    each = []
    for row, start in enumerate(starts):
        if new_kv is not None:
            kv[row, :, start].copy_(new_kv[row, 0])
        first = max(0, start + 1 - window) if window else 0
        keys, values = kv[row : row + 1, :, first : start + 1].chunk(2, 1)
        each.append(attend(q[row : row + 1], keys, values, None, scale, cap, sinks))
    return torch.cat(each)


def _by_key_head(mask: Tensor, h_kv: int) -> Tensor:
    """Lays out a mask `[R or 1, H or 1, K, S]` by key heads: `[R or 1, Hkv or 1, G or 1, K, S]`."""
    return mask[:, :, None] if mask.shape[1] == 1 else mask.view(len(mask), h_kv, -1, *mask.shape[2:])


def _attend_sliced(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    scale: float,
    cap: float,
    sinks: Tensor | None,
) -> Tensor:
    """Computes `attend` with a cap or sinks, which no kernel of torch does, a slice of queries at a time."""
    rows, k, h, d = q.shape
    h_kv, span = keys.shape[1:3]
    transposed = keys.transpose(2, 3)
    y = torch.empty_like(q)
    for at in range(0, k, SLICE):
        piece = q[:, at : at + SLICE]
        count = piece.shape[1]
        grouped = piece.view(rows, count, h_kv, -1, d).permute(0, 2, 3, 1, 4).reshape(rows, h_kv, -1, d)
        scores = (grouped @ transposed).float()
        scores = scores.mul_(scale / cap).tanh_().mul_(cap) if cap else scores.mul_(scale)
        scores = scores.view(rows, h_kv, -1, count, span)
        if mask is not None:
            scores += _by_key_head(mask, h_kv)[..., at : at + SLICE, :]
        elif k > 1:
            end = span - k + at + 1  # positions that the slice's first query sees
            hidden = torch.ones(count, span, dtype=torch.bool, device=q.device).triu_(end)
            scores.masked_fill_(hidden, -torch.inf)
        shares = scores.softmax(-1) if sinks is None else _softmax_with_sinks(scores, sinks)
        shares = shares.to(q.dtype).view(rows, h_kv, -1, span)
        seen = (shares @ values).view(rows, h_kv, -1, count, d)
        y[:, at : at + SLICE] = seen.permute(0, 3, 1, 2, 4).reshape(rows, count, h, d)
    return y


def _softmax_with_sinks(scores: Tensor, sinks: Tensor) -> Tensor:
    """Computes the softmax of scores and one sink (arXiv 2309.17453), whose share is left out.

    Args:
        scores: float32 `[R, Hkv, G, K, S]`, overwritten.
        sinks: `[H]`.

    Returns:
        Shares of the keys, in the place of their scores.
    """
    sink = sinks.float().view(scores.shape[1], -1, 1, 1)
    peak = torch.maximum(scores.amax(-1, keepdim=True), sink)
    shares = scores.sub_(peak).exp_()
    return shares.div_(shares.sum(-1, keepdim=True).add_((sink - peak).exp_()))
