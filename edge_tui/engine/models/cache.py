"""Holds the state of a decode on the flat tier: keys, values, and each row's length.

Everything is allocated once, and every change happens in place, so addresses hold inside captured graphs.
Rows may differ in length. Rewinding only forgets a number: old keys stay until they are overwritten, and
masks keep them from being seen (which is also why windowed layers keep everything).

A fork copies its parent's row, or shares it (`branches`) where attention can read from two places.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import Tensor

from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.models.base import ContextFull
from edge_tui.engine.models.branches import Branches
from edge_tui.engine.models.layer_states import LayerStates, PastStates
from edge_tui.engine.ops.cpu.torchscript import own_in_cpp

BUCKET = 256
"""On an accelerator attention spans a multiple of this, so that shapes rarely change."""


class FlatContext:
    """Holds keys and values of `rows` sequences.

    Attributes:
        rows: Number of rows `R`.
        capacity: Most positions of a row.
        length: int64 `[R]` on the device, positions held by each row; updated in place.
        cos: `[capacity, rotary]`, the run's rotary table.
        sin: The same for signed sines.
        bound: Upper bound of `length` that the host knows without asking the device.
        uniform: True if the host knows that every row is exactly `bound` long.
        totals: Lengths of a run for which `cos` and `sin` are right.
        share: True if forks share what this context holds instead of copying it.
        whole: True if attention on an accelerator spans all positions, so that a captured step holds wherever
            the rows have got to.
        branches: Keys and values of a fork that shares; None in a plain context.
        logits_out: The tensor that a forward puts its logits `[R, K, V]` into; None where it allocates one.
        replay: Appends one id `[1, 1]` by replaying a captured step and returns the logits `[1, 1, V]`; None
            before one has been captured.
        needs: Outputs of forwards beside logits; layers counted from 0.
        states: The buffers of what they give, by needs and `K`.
        past: Hidden states of all positions; None where they are not kept.
    """

    def __init__(
        self,
        rows: int,
        capacity: int,
        shape: tuple[int, int, int],
        cos: Tensor,
        sin: Tensor,
        totals: range = range(sys.maxsize),
        share: bool = False,
        whole: bool = False,
        parent: FlatContext | None = None,
    ) -> None:
        """Makes an empty context, or a fork of `parent`, which must be of the same shape but for the rows.

        `shape`: layers, key and value heads together, width of a head.
        """
        device = cos.device
        self.rows = rows
        self.capacity = capacity
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        self.cos = cos
        self.sin = sin
        self.bound = 0
        self.uniform = True
        self._row_lengths: list[int] | None = None
        self.on_host = device.type == "cpu"
        self.share = share
        self.whole = whole
        self.totals = totals
        self.branches: Branches | None = None
        self.logits_out: Tensor | None = None
        self.replay: Callable[[Tensor], Tensor] | None = None
        self.needs = Needs()
        self.states: dict[tuple[Needs, int], LayerStates] = {}
        self.past: PastStates | None = None
        self._parent = parent
        self._shape = shape
        if parent is not None:
            self.needs = parent.needs
            self.past = parent.past and parent.past.fork(rows)
        if parent is not None and parent.share:
            self.branches = Branches(parent.block, rows, parent.lengths()[0])
            self._start(self.branches.start)
            return
        self._allocate()
        if parent is not None:
            self._copy(parent)

    @property
    def block(self) -> Tensor:
        """All layers in one, `[layers, R, 2 * Hkv, capacity, D]`. Materialises a fork that shares."""
        self.materialise()
        return self._block

    @property
    def kv(self) -> tuple[Tensor, ...]:
        """For each layer `[R, 2 * Hkv, capacity, D]`, keys first. Materialises a fork that shares."""
        self.materialise()
        return self._kv

    def sources(self, layer: int) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Returns the arguments `root`, `fork`, `base` and `owner` of `attend`."""
        branches = self.branches
        if branches is None:
            return self._kv[layer], None, None, None
        return branches.root[layer], branches.fork[layer], branches.base, branches.owner

    def span(self, extra: int) -> int:
        """Returns the positions that attention must look at once `extra` more are appended."""
        end = self.bound + extra
        if self.on_host:
            return end
        if self.whole:
            return self.capacity
        return min(-(-end // BUCKET) * BUCKET, self.capacity)

    def reserve(self, extra: int) -> None:
        """Makes sure that `extra` more positions fit every row.

        Raises:
            ContextFull: they do not.
        """
        if self.bound + extra > self.capacity and not self.uniform:
            # After rewinding the bound may lie above the truth; only here is it worth a wait.
            self._note(self.length.tolist())
        if self.bound + extra > self.capacity:
            raise ContextFull(
                f"The context holds {self.capacity} positions and {self.bound} are taken: "
                f"{extra} more do not fit."
            )

    def advance(self, count: int) -> None:
        """Counts `count` appended positions in every row."""
        self.length += count
        self.count_on_host(count)

    def count_on_host(self, count: int) -> None:
        """Counts appended positions in `bound` alone, when `length` has been raised already."""
        self.bound += count
        self._row_lengths = None

    def lengths(self) -> list[int]:
        """Returns each row's positions; asks the device only if the host does not know."""
        if self.uniform:
            return [self.bound] * self.rows
        if self._row_lengths is None:
            self._note(self.length.tolist())
        return self._row_lengths or [self.bound] * self.rows

    def output(self, states: LayerStates | None, product: Tensor) -> Output:
        """Stores the newest positions in the past, and builds a step's result from the head's product."""
        if states is None:
            return Output(product)
        if self.past is not None:
            self.past.append(states.ends[-1], self.length, len(states.ends[-1]) // self.rows)
        return states.output(product, self.past, self.length)

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` what row `parent[r]` had. `parent`: int64 `[R]` on the device."""
        if self.past is not None:
            self.past.reorder(parent, self.bound if self.on_host else self.capacity)
        if self.branches is not None:
            self.branches.reorder(parent)  # rows that share are level, so lengths stay
            return
        if self.on_host:
            parents = parent.tolist()
            moved = [row for row, p in enumerate(parents) if p != row]
            if not moved:
                return
            target = parent.new_tensor(moved)
            source = parent[target]
            in_use = self._block[:, :, :, : self.bound]
            in_use[:, target] = in_use[:, source]
        else:
            in_use = self._block[:, :, :, : self.span(0)]
            in_use.copy_(in_use.index_select(1, parent))
        self.length.copy_(self.length[parent])
        self._forget()

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on. A tensor, so that no host round trip is needed.

        Only a fork that shares asks the device: it stays one as long as its rows are level and reach the
        shared part's end.
        """
        if self.branches is not None:
            shortened: list[int] = self.length.minimum(length).tolist()
            if min(shortened) != max(shortened) or shortened[0] < self.branches.start:
                self.materialise()
            else:
                self._start(shortened[0])
                return
        self.length.copy_(self.length.minimum(length))
        self.uniform = False
        self._forget()

    def resume(self, length: int) -> None:
        """Gives every row `length` positions again, of which nothing has been overwritten by other ids."""
        self._start(length)

    def fork(self, rows: int) -> FlatContext:
        """Makes a new context of `rows` rows, each what row 0 is.

        One that shares needs the parent's row as it is now, up to its present length; the parent may grow.
        """
        shared = self._shape, self.cos, self.sin, self.totals, self.share, self.whole
        return FlatContext(rows, self.capacity, *shared, parent=self)

    def refork(self) -> bool:
        """Makes a fork, at its old addresses, what forking its parent anew would give; False if it cannot."""
        parent = self._parent
        if parent is None:
            return False
        if self.branches is None:
            self._copy(parent)
            self._refill_past(parent)
            return True
        start = parent.lengths()[0]
        if not self.branches.restart(start):
            return False
        self._refill_past(parent)
        self._start(start)
        return True

    def materialise(self) -> None:
        """Turns a fork that shares into a plain context. Graphs captured on it are void then."""
        branches = self.branches
        if branches is None:
            return
        self._allocate()
        for i, layer in enumerate(self._kv):
            layer[:, :, : self.bound] = branches.layer(i)[:, :, : self.bound]
        self.branches = self._parent = None

    def _allocate(self) -> None:
        """Makes the buffers of a plain context."""
        layers, heads, head_dim = self._shape
        # Zeros, not empty: a masked position still meets its value, and 0 × NaN is NaN.
        self._block = self.cos.new_zeros(layers, self.rows, heads, self.capacity, head_dim)
        self._kv: tuple[Tensor, ...] = tuple(self._block)
        if self.on_host:  # compiled steps read these
            self._cpp_refs = own_in_cpp((self._block, self.length, self.cos, self.sin))

    def _copy(self, parent: FlatContext) -> None:
        """Fills every row with the parent's row 0."""
        end = parent.lengths()[0]
        for layer, source in zip(self._kv, parent.kv, strict=True):
            layer[:, :, :end] = source[:1, :, :end]
        self._start(end)

    def _refill_past(self, parent: FlatContext) -> None:
        """Copies the parent's past states to every row."""
        if self.past is not None and parent.past is not None:
            self.past.refill(parent.past)

    def _start(self, length: int) -> None:
        """Takes every row to be of a length that the host knows."""
        self.length.fill_(length)
        self._note([length] * self.rows)

    def _forget(self) -> None:
        """Drops the known lengths, changed on the device; reads them again where that needs no wait."""
        self._row_lengths = None
        if self.on_host and not self.uniform:
            self._note(self.length.tolist())

    def _note(self, lengths: list[int]) -> None:
        """Takes down the exact length of each row."""
        self.bound = max(lengths)
        self.uniform = min(lengths) == self.bound
        self._row_lengths = None if self.uniform else lengths
