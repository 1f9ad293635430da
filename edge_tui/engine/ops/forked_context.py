"""Reads and reorders forked contexts: rows share prompts, and a table says who holds each later position."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def join_fork(root: Tensor, fork: Tensor, base: Tensor, owner: Tensor) -> Tensor:
    """Returns the keys and values `[R, 2 Hkv, capacity, D]` that a forked context stands for.

    Positions past the fork's room come out arbitrary.

    Args:
        root: `[S, 2 * Hkv, capacity, D]`, of which row `r // (R / S)` holds the first `base[r]` positions of
            row `r`.
        fork: `[R, 2 * Hkv, room, D]`: a later position `t` of row `r` lies in row `owner[r, t - base[r]]`.
        base: int64 `[R]`.
        owner: int32 `[R, room]`.
    """
    import torch

    at = torch.arange(root.shape[2], device=owner.device)
    slot = (at - base[:, None]).clamp(0, fork.shape[2] - 1)
    later = fork[owner.gather(1, slot).long(), :, slot].transpose(1, 2)
    prompts = root.repeat_interleave(len(base) // len(root), 0)
    return torch.where((at < base[:, None])[:, None, :, None], prompts, later)


def follow(owner: Tensor, parent: Tensor) -> None:
    """Gives each row of a forked context the past of another.

    Args:
        owner: int32 `[R, room]`, as `join_fork` reads it; row `r` becomes what row `parent[r]` was.
        parent: int64 `[R]`.
    """
    from edge_tui.engine.ops.triton.availability import takes

    if takes(owner):
        from edge_tui.engine.ops.triton import attend as attend_triton

        attend_triton.follow(owner, parent)
    else:
        owner.copy_(owner.index_select(0, parent))
