"""Shares the keys and values of prompts among rows.

The keys and values of a prompt are a row of the parent's, read by all its copies; what a row appends goes
into a block of its own. Where a row takes over another's past, as beams do at every step, a table changes and
nothing is moved: it names for each row and position the row whose block holds it.

This is sound while rows have appended equally much. A row's new position then lies where no other row's past
does; were it behind, it would write over what others still refer to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge_tui.engine.models.capacity import round_up
from edge_tui.engine.ops.forked_context import follow, join_fork


class Branches:
    """Holds what rows append to the prompts that they share. Addresses never change.

    `S` prompts have `R / S` rows each, side by side.

    Attributes:
        root: For each layer the parent's `[S, 2 * Hkv, capacity, D]`.
        fork: For each layer `[R, 2 * Hkv, room, D]`: positions from `base` on.
        base: int64 `[R]` on the device, length of each row's prompt.
        owner: int32 `[R, room]`: the row of `fork` that holds position `base[r] + t` of row `r`.
        starts: `base`, as the host knows it.
    """

    __slots__ = ("base", "fork", "owner", "root", "starts")

    def __init__(self, parent: Tensor, rows: int, lengths: Sequence[int]) -> None:
        """Branches off `parent` `[layers, S, 2 * Hkv, capacity, D]`, whose rows have these `S` lengths."""
        layers, _, width, capacity, head_dim = parent.shape
        room = round_up(max(capacity - max(lengths), 1))  # rows grow equally: the longest is full first
        device = parent.device
        # Zeros, not empty: should the rows be put together again, masked positions must not be NaN.
        block = torch.zeros(layers, rows, width, room, head_dim, dtype=parent.dtype, device=device)
        self.root: tuple[Tensor, ...] = tuple(parent)
        self.fork: tuple[Tensor, ...] = tuple(block)
        self.base = torch.zeros(rows, dtype=torch.int64, device=device)
        row = torch.arange(rows, dtype=torch.int32, device=device)
        self.owner = row[:, None].repeat(1, room)
        self._begin(lengths)

    def restart(self, lengths: Sequence[int]) -> bool:
        """Branches off anew after these `S` lengths; False, and nothing done, where room is short."""
        if self.root[0].shape[2] - max(lengths) > self.owner.shape[1]:
            return False
        self._begin(lengths)
        return True

    def _begin(self, lengths: Sequence[int]) -> None:
        each = len(self.owner) // len(lengths)
        self.starts = [length for length in lengths for _ in range(each)]
        self.base.copy_(torch.tensor(self.starts))

    def is_level(self, lengths: Sequence[int]) -> bool:
        """Tells whether rows of these `R` lengths have equally many positions of their own."""
        own = [length - start for length, start in zip(lengths, self.starts, strict=True)]
        return min(own) == max(own) and own[0] >= 0

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` what row `parent[r]` had. `parent`: int64 `[R]` on the device."""
        follow(self.owner, parent)

    def layer(self, i: int) -> Tensor:
        """Copies keys and values as a plain context holds them, `[R, 2 * Hkv, capacity, D]`."""
        return join_fork(self.root[i], self.fork[i], self.base, self.owner)
