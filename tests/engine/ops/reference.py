"""The kernels of attention and of products in plain torch operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor, dtype
from torch.nn import functional as F

from edge_tui.engine.models.feed_forward import ACTIVATIONS
from edge_tui.engine.ops.code_groups import unpack
from edge_tui.engine.ops.forked_context import join_fork
from edge_tui.engine.ops.packed import PackedMatrix


def attend(
    qkv: Tensor,
    root: Tensor,
    fork: Tensor | None,
    base: Tensor | None,
    owner: Tensor | None,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    out: Tensor,
    scratch: object = None,
    *,
    heads: int,
    kv_heads: int,
    k: int,
    qk_norm: Tensor | None = None,
    over_heads: bool = False,
    sinks: Tensor | None = None,
    eps: float = 0.0,
    window: int = 0,
    scale: float = 0.0,
    cap: float = 0.0,
) -> None:
    """Computes `triton.attend.attend`; its cost follows the buffer."""
    rows, capacity, d = len(length), root.shape[2], root.shape[3]
    positions = length[:, None] + torch.arange(k, device=length.device)
    new_qkv = qkv.view(rows, k, heads + 2 * kv_heads, d)
    qk = new_qkv[:, :, : heads + kv_heads].float()
    if qk_norm is not None:
        parts = qk.split([heads, kv_heads], 2) if over_heads else [qk]
        normed = [F.rms_norm(part, part.shape[3 - over_heads :], None, eps) for part in parts]
        qk = torch.cat(normed, 2) * qk_norm
    row = positions.clamp(max=len(cos) - 1)
    qk = _rotated(qk, cos[row][:, :, None].float(), sin[row][:, :, None].float()).to(qkv.dtype)
    new = torch.cat((qk[:, :, heads:], new_qkv[:, :, heads + kv_heads :]), 2).transpose(1, 2)
    if fork is None:
        _append(root, new, length)
        keys_values = root
    else:
        assert base is not None
        assert owner is not None
        begin = length - base
        _append(fork, new, begin)
        slots = torch.arange(fork.shape[2], device=length.device)
        written = (slots >= begin[:, None]) & (slots < begin[:, None] + k)
        own = torch.arange(rows, dtype=owner.dtype, device=owner.device)[:, None]
        owner.copy_(torch.where(written, own, owner))
        keys_values = join_fork(root, fork, base, owner)
    at = torch.arange(capacity, device=length.device)
    visible = at <= positions[:, :, None]
    if window:
        visible &= at > positions[:, :, None] - window
    scores = torch.einsum(
        "rkhgd,rhtd->rhgkt",
        qk[:, :, :heads].view(rows, k, kv_heads, heads // kv_heads, d).float(),
        keys_values[:, :kv_heads].float(),
    )
    scores = scores * (scale or d**-0.5)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~visible[:, None, None], -torch.inf)
    if sinks is not None:
        scores = torch.cat((scores, sinks.float().view(kv_heads, -1, 1, 1).expand_as(scores[..., :1])), -1)
    shares = scores.softmax(-1)[..., :capacity]
    mixed = torch.einsum("rhgkt,rhtd->rkhgd", shares, keys_values[:, kv_heads:].float())
    out.copy_(mixed.reshape(out.shape))


def _append(cache: Tensor, new: Tensor, start: Tensor) -> None:
    """Writes `new` `[R, C, K, D]` at positions from `start[r]` on of `cache` `[R, C, P, D]`, what fits."""
    k = new.shape[2]
    which = torch.arange(cache.shape[2], device=cache.device) - start[:, None]
    picked = new.gather(2, which.clamp(0, k - 1)[:, None, :, None].expand_as(cache))
    cache.copy_(torch.where(((which >= 0) & (which < k))[:, None, :, None], picked, cache))


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the leading columns of `[…, D]` that the tables reach; the others stay."""
    rotary = cos.shape[-1]
    turning, still = heads[..., :rotary], heads[..., rotary:]
    return torch.cat((turning * cos + turning.roll(rotary // 2, -1) * sin, still), -1)


def project(
    x: Tensor,
    packed: PackedMatrix,
    out: Tensor,
    *,
    norm: Tensor | None = None,
    eps: float = 0.0,
    gate: str = "",
    residual: Tensor | None = None,
    factor: float = 1.0,
    cap: float = 0.0,
) -> None:
    """Computes `triton.project.project`."""
    if norm is not None:
        x = F.rms_norm(x, (packed.columns,), norm, eps)
    y = F.linear(x, dequantise(packed, x.dtype), packed.bias)
    if gate:
        half = packed.rows // 2
        y = ACTIVATIONS[gate](y[:, :half]) * y[:, half:]
    y = y * factor
    if cap:
        y = cap * torch.tanh(y / cap)
    out.copy_(y if residual is None else y + residual)


def dequantise(packed: PackedMatrix, dtype: dtype) -> Tensor:
    """Widens a matrix `[N, K]` to `dtype`; returns the weight itself if it has that dtype already."""
    if packed.kind == "plain":
        return packed.weight.to(dtype)
    if packed.form is not None:
        return unpack(packed).dequantise().to(dtype)
    assert packed.scale is not None
    return (packed.weight * (packed.scale / 127.0)[:, None]).to(dtype)
