"""Computes the attention of a decode step: each row's last positions look at all before them.

One call does what lies between two matrices of a layer: norms of the heads, rotary, writing the new keys and
values, and attention. How far each row has got is read on the device and the cost follows it, so the call
can be captured once and replayed at any length. On an NVIDIA GPU it is one kernel (`triton.attend`).

Shapes: `R` rows, `K` new positions of each, `T = R * K` tokens, `H` query heads, `Hkv` key heads,
`G = H / Hkv` query heads that a key head serves, `D` width of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine.ops.triton.availability import available

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.ops.attend_scratch import Scratch

MAX_POSITIONS = 8
"""Most new positions of a row in one call."""


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
    scratch: Scratch,
    *,
    heads: int,
    kv_heads: int,
    k: int,
    qk_norm: Tensor | None = None,
    eps: float = 0.0,
    window: int = 0,
) -> None:
    """Appends `K` positions to every row's keys and values and attends from them.

    Row `r`'s new positions are `length[r]`, …, `length[r] + K - 1`; `length` itself is left to the caller.
    Where they lie beyond the buffer nothing is written, and the row's result means nothing.

    A plain context (`fork` is None) has a row of `root` for each row. In a forked one, all rows share the
    first `base` positions, row 0 of `root`; a later position `t` of row `r` lies in row `owner[r, t - base]`
    of `fork`, and new ones are put into row `r` and so entered in `owner`.

    Args:
        qkv: `[T, (H + 2 Hkv) * D]`, queries, keys and values before their norms and rotary; contiguous.
        root: `[R, 2 * Hkv, capacity, D]`, keys first; contiguous. Of a forked context `[≥ 1, …]`.
        fork: `[R, 2 * Hkv, room, D]`, contiguous.
        base: int64 `[1]`. No row may be shorter.
        owner: int32 `[R, room]`.
        length: int64 `[R]`.
        cos: `[capacity, rotary]` as in `rope.tables`; contiguous.
        sin: The same for signed sines.
        out: `[T, H * D]`, contiguous.
        scratch: Made for at least this many rows, positions and heads.
        heads: `H`.
        kv_heads: `Hkv`.
        k: `K`, at most `MAX_POSITIONS`.
        qk_norm: `[H + Hkv, D]`, norms of each head's query and key.
        eps: Their epsilon.
        window: Positions that a query sees, its own included; 0 means all.
    """
    run: Callable[..., None] = reference
    if qkv.is_cuda and available() is None:
        from edge_tui.engine.ops.triton import attend as attend_triton

        run = attend_triton.attend
    run(
        qkv,
        root,
        fork,
        base,
        owner,
        length,
        cos,
        sin,
        out,
        scratch,
        heads=heads,
        kv_heads=kv_heads,
        k=k,
        qk_norm=qk_norm,
        eps=eps,
        window=window,
    )


def reference(
    qkv: Tensor,
    root: Tensor,
    fork: Tensor | None,
    base: Tensor | None,
    owner: Tensor | None,
    length: Tensor,
    cos: Tensor,
    sin: Tensor,
    out: Tensor,
    scratch: Scratch | None = None,
    *,
    heads: int,
    kv_heads: int,
    k: int,
    qk_norm: Tensor | None = None,
    eps: float = 0.0,
    window: int = 0,
) -> None:
    """Computes `attend` in plain torch operations, on any device; its cost follows the buffer."""
    import torch
    from torch.nn import functional as F

    rows, capacity, d = len(length), root.shape[2], root.shape[3]
    positions = length[:, None] + torch.arange(k, device=length.device)
    new_qkv = qkv.view(rows, k, heads + 2 * kv_heads, d)
    qk = new_qkv[:, :, : heads + kv_heads].float()
    if qk_norm is not None:
        qk = F.rms_norm(qk, (d,), None, eps) * qk_norm
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
        keys_values = branched(root, fork, base, owner)
    at = torch.arange(capacity, device=length.device)
    visible = at <= positions[:, :, None]
    if window:
        visible &= at > positions[:, :, None] - window
    scores = torch.einsum(
        "rkhgd,rhtd->rhgkt",
        qk[:, :, :heads].view(rows, k, kv_heads, heads // kv_heads, d).float(),
        keys_values[:, :kv_heads].float(),
    )
    shares = (scores * d**-0.5).masked_fill(~visible[:, None, None], -torch.inf).softmax(-1)
    mixed = torch.einsum("rhgkt,rhtd->rkhgd", shares, keys_values[:, kv_heads:].float())
    out.copy_(mixed.reshape(out.shape))


def branched(root: Tensor, fork: Tensor, base: Tensor, owner: Tensor) -> Tensor:
    """Returns the keys and values `[R, 2 Hkv, capacity, D]` that a forked context stands for.

    Arguments are those of `attend`. Positions past the fork's room come out arbitrary.
    """
    import torch

    at = torch.arange(root.shape[2], device=owner.device)
    slot = (at - base).clamp(0, fork.shape[2] - 1)
    grown = fork[owner[:, slot].long(), :, slot].transpose(1, 2)
    return torch.where((at < base)[:, None], root[:1], grown)


def follow(owner: Tensor, parent: Tensor) -> None:
    """Gives each row of a forked context the past of another.

    Args:
        owner: int32 `[R, room]`, as in `attend`; row `r` becomes what row `parent[r]` was.
        parent: int64 `[R]`.
    """
    if owner.is_cuda and available() is None:
        from edge_tui.engine.ops.triton import attend as attend_triton

        attend_triton.follow(owner, parent)
    else:
        owner.copy_(owner.index_select(0, parent))


def _append(cache: Tensor, new: Tensor, start: Tensor) -> None:
    """Writes `new` `[R, C, K, D]` at positions from `start[r]` on of `cache` `[R, C, P, D]`, what fits."""
    import torch

    k = new.shape[2]
    which = torch.arange(cache.shape[2], device=cache.device) - start[:, None]
    picked = new.gather(2, which.clamp(0, k - 1)[:, None, :, None].expand_as(cache))
    cache.copy_(torch.where(((which >= 0) & (which < k))[:, None, :, None], picked, cache))


def _rotated(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotates the leading columns of `[…, D]` that the tables reach; the others stay."""
    import torch

    rotary = cos.shape[-1]
    turning, still = heads[..., :rotary], heads[..., rotary:]
    return torch.cat((turning * cos + turning.roll(rotary // 2, -1) * sin, still), -1)
