"""Stores and reorders hidden states of all positions: by kernels on a GPU, else by torch operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def append(states: Tensor, new: Tensor, length: Tensor, k: int, shared: Tensor) -> None:
    """Stores the newest `k` states of each row.

    Args:
        states: `[R, capacity, D]`.
        new: `[R * k, D]`.
        length: int64 `[R]`, positions of each row, these among them.
        k: Positions of each row.
        shared: int64 `[2]`, which kernels read and write: see `triton.past_states`. Zeros for new states.
    """
    import torch

    if _by_kernel(states):
        from edge_tui.engine.ops.triton import past_states as past_states_triton

        past_states_triton.append(states, new, length, k, shared)
        return
    rows = torch.arange(len(states), device=states.device)[:, None]
    at = length[:, None] - k + torch.arange(k, device=length.device)
    states[rows, at] = new.view(len(states), k, -1)


def reorder(states: Tensor, parent: Tensor, length: Tensor, shared: Tensor, end: int) -> None:
    """Gives each row the states of another.

    Args:
        states: `[R, capacity, D]`; row `r` becomes what row `parent[r]` was.
        parent: int64 `[R]`.
        length: int64 `[R]`, positions of each row before.
        shared: As for `append`.
        end: At least the greatest length, as the host knows it.
    """
    if _by_kernel(states):
        from edge_tui.engine.ops.triton import past_states as past_states_triton

        past_states_triton.reorder(states, parent, length, shared)
        return
    in_use = states[:, :end]
    in_use.copy_(in_use.index_select(0, parent))


def _by_kernel(states: Tensor) -> bool:
    from edge_tui.engine.ops.triton.availability import takes

    return takes(states)
