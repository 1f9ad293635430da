"""Holds the state of a decode on the transformers tier: rows of equal length share one cache.

Padding is where other people's models go wrong: some count positions from the mask, some by column, windows
count padding in, recurrent layers cannot skip it. So nothing is ever padded here. Rows that are equally
long are one group and run as one batch; when lengths part (ragged prompts, uneven rewinding) the group is
split. Ordinary decoding and beams stay one group.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edge_tui.decoders.base import Needs
from edge_tui.engine.models.base import ContextFull
from edge_tui.engine.models.layer_states import PastStates


@dataclass(slots=True)
class Group:
    """Holds rows of one length.

    Attributes:
        rows: Their numbers, in the cache's order.
        length: Positions held by each of them.
        cache: A transformers `Cache` with one batch entry a row.
    """

    rows: list[int]
    length: int
    cache: Any


class GroupedContext:
    """Holds groups of rows as a `Context`; `TransformersModel.open` makes one.

    Attributes:
        rows: Number of rows `R`.
        capacity: Most positions of a row.
        length: int64 `[R]` on the device; updated in place.
        groups: Each row is in exactly one.
        totals: Every length of a run: rotary factors never change within this tier's contexts.
        needs: Outputs of forwards beside logits; layers counted from 0.
        past: Hidden states of all positions; None where they are not kept.
    """

    totals = range(sys.maxsize)

    def __init__(self, rows: int, capacity: int, device: str, make: Callable[[], Any], rewind: bool) -> None:
        self.rows = rows
        self.capacity = capacity
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        self.groups = [Group(list(range(rows)), 0, make())]
        self.needs = Needs()
        self.past: PastStates | None = None
        self._device = device
        self._make = make
        self._rewind = rewind

    def lengths(self) -> list[int]:
        """Returns each row's positions."""
        lengths = [0] * self.rows
        for group in self.groups:
            for row in group.rows:
                lengths[row] = group.length
        return lengths

    def reserve(self, extra: int) -> None:
        """Makes sure that `extra` more positions fit every row.

        Raises:
            ContextFull: they do not.
        """
        need = max(self.lengths()) + extra
        if need > self.capacity:
            raise ContextFull(f"{need} positions are needed, but the context holds {self.capacity}.")

    def part(self, keys: Sequence[int]) -> None:
        """Splits groups so that rows of one group have one key. `keys`: `R` numbers."""
        parts = []
        for group in self.groups:
            by_key: dict[int, list[int]] = {}
            for place, row in enumerate(group.rows):
                by_key.setdefault(keys[row], []).append(place)
            if len(by_key) == 1:
                parts.append(group)
                continue
            for places in by_key.values():
                rows = [group.rows[place] for place in places]
                parts.append(Group(rows, group.length, self._copied(group, places)))
        self.groups = parts

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` what row `parent[r]` had. `parent`: int64 `[R]`."""
        parents = parent.tolist()
        if parents == list(range(self.rows)):
            return
        if self.past is not None:
            self.past.reorder(parent, self.length, max(self.lengths()))
        groups = []
        for group in self.groups:
            places = {row: group.rows.index(p) for row, p in enumerate(parents) if p in group.rows}
            if places and group.length:
                group.cache.reorder_cache(torch.tensor(list(places.values()), device=self._device))
            if places:
                groups.append(Group(list(places), group.length, group.cache))
        self.groups = groups
        self._write_lengths()

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on.

        Raises:
            ValueError: the model is recurrent and something would have to be forgotten.
        """
        targets = [min(a, b) for a, b in zip(self.lengths(), length.tolist(), strict=True)]
        if targets == self.lengths():
            return
        if not self._rewind and any(targets):
            raise ValueError("This model cannot forget single tokens: its state is one running summary.")
        self.part(targets)
        for group in self.groups:
            target = targets[group.rows[0]]
            if target == 0:
                group.cache = self._make()
            elif target < group.length:
                group.cache.crop(target - group.length)  # a negative number of tokens to remove
            group.length = target
        self._write_lengths()

    def fork(self, rows: int) -> GroupedContext:
        """Makes a new context in which each row of this one has `rows` copies, side by side."""
        child = GroupedContext(rows * self.rows, self.capacity, self._device, self._make, self._rewind)
        child.groups = []
        for group in self.groups:
            places = [place for place in range(len(group.rows)) for _ in range(rows)]
            copies = [row * rows + each for row in group.rows for each in range(rows)]
            child.groups.append(Group(copies, group.length, self._copied(group, places)))
        child._write_lengths()
        child.needs = self.needs
        child.past = self.past and self.past.fork(rows)
        return child

    def _copied(self, group: Group, places: list[int]) -> Any:
        """Copies these places of a group's cache."""
        if not group.length:
            return self._make()
        cache = copy.deepcopy(group.cache)
        cache.reorder_cache(torch.tensor(places, device=self._device))
        return cache

    def _write_lengths(self) -> None:
        """Writes the host's lengths to the device."""
        self.length.copy_(self.length.new_tensor(self.lengths()))
