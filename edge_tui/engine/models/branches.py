"""Shares the prompt's keys and values among rows.

The prompt's keys and values are the parent's, read by all; what a row appends goes into a block of its own.
Where a row takes over another's past, as beams do at every step, a table changes and nothing is moved: it
names for each row and position the row whose block holds it.

This is sound while rows are level. A row's new position then lies where no other row's past does; were it
behind, it would write over what others still refer to.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge_tui.engine.models.capacity import round_up
from edge_tui.engine.ops.forked_context import follow, join_fork


class Branches:
    """Holds what rows append to a prompt that they share. Addresses never change.

    Attributes:
        root: For each layer the parent's `[≥ 1, 2 * Hkv, capacity, D]`, of which row 0 counts.
        fork: For each layer `[R, 2 * Hkv, room, D]`: positions from `base` on.
        base: int64 `[1]` on the device, length of the prompt.
        owner: int32 `[R, room]`: the row of `fork` that holds position `base + t` of row `r`.
        start: `base`, as the host knows it.
    """

    __slots__ = ("base", "fork", "owner", "root", "start")

    def __init__(self, parent: Tensor, rows: int, start: int) -> None:
        """Branches off `parent` `[layers, ≥ 1, 2 * Hkv, capacity, D]` after `start` positions."""
        layers, _, width, capacity, head_dim = parent.shape
        room = round_up(max(capacity - start, 1))
        device = parent.device
        # Zeros, not empty: should the rows be put together again, masked positions must not be NaN.
        block = torch.zeros(layers, rows, width, room, head_dim, dtype=parent.dtype, device=device)
        self.root: tuple[Tensor, ...] = tuple(parent)
        self.fork: tuple[Tensor, ...] = tuple(block)
        self.base = torch.full((1,), start, dtype=torch.int64, device=device)
        row = torch.arange(rows, dtype=torch.int32, device=device)
        self.owner = row[:, None].repeat(1, room)
        self.start = start

    def restart(self, start: int) -> bool:
        """Branches off anew after `start` positions; False, and nothing done, where room is short."""
        if self.root[0].shape[2] - start > self.owner.shape[1]:
            return False
        self.base.fill_(start)
        self.start = start
        return True

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` what row `parent[r]` had. `parent`: int64 `[R]` on the device."""
        follow(self.owner, parent)

    def layer(self, i: int) -> Tensor:
        """Copies keys and values as a plain context holds them, `[R, 2 * Hkv, capacity, D]`."""
        return join_fork(self.root[i], self.fork[i], self.base, self.owner)
