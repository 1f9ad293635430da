"""Holds the state of a decode on the flat tier: keys, values, and each row's length.

Everything is allocated once, and every change happens in place, so addresses hold inside captured graphs.
Rows may differ in length. Rewinding only forgets a number: old keys stay until they are overwritten, and
masks keep them from being seen (which is also why windowed layers keep everything).

A fork copies its parent's rows, or shares them (`branches`) where attention can read from two places. One row
of a context is a context, too (`row`): what is read into it is there for the step of all rows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import copy

import torch
from torch import Tensor

from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.models.base import Context, ContextFull
from edge_tui.engine.models.branches import Branches
from edge_tui.engine.models.layer_states import LayerStates, PastStates
from edge_tui.engine.models.row_lengths import RowLengths
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
        layers: tuple[tuple[int, int, int], ...],
        cos: Tensor,
        sin: Tensor,
        totals: range = range(sys.maxsize),
        share: bool = False,
        whole: bool = False,
        parent: FlatContext | None = None,
    ) -> None:
        """Makes an empty context, or a fork of `parent`, of the same shape but for a multiple of its rows.

        `layers`: For each the one whose keys and values it attends to, mostly itself; key and value heads
        together; and the width of a head.
        """
        device = cos.device
        self.rows = rows
        self.capacity = capacity
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        self.cos = cos
        self.sin = sin
        self._lengths = RowLengths(rows)
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
        self._layers = layers
        if parent is not None:
            self.needs = parent.needs
            self.past = parent.past and parent.past.fork(rows // parent.rows)
        if parent is not None and parent.share:
            self.branches = Branches(parent.block, rows, parent.lengths())
            self._start(self.branches.starts)
            return
        self._allocate()
        if parent is not None:
            self._copy(parent)

    @property
    def bound(self) -> int:
        """Upper bound of `length` that the host knows without asking the device."""
        return self._lengths.bound

    @property
    def uniform(self) -> bool:
        """True if the host knows that every row is exactly `bound` long."""
        return self._lengths.level

    @property
    def block(self) -> Tensor:
        """All layers in one, `[layers, R, 2 * Hkv, capacity, D]`, where they are alike. As `blocks`."""
        (block,) = self.blocks
        return block

    @property
    def blocks(self) -> tuple[Tensor, ...]:
        """Those layers of one shape in one, as `block` has it. Materialises a fork that shares."""
        self.materialise()
        return self._blocks

    @property
    def kv(self) -> tuple[Tensor, ...]:
        """For each layer `[R, 2 * Hkv, capacity, D]`, keys first; those of its source where it has none of
        its own. Materialises a fork that shares.
        """
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

    def widen(self, extra: int) -> int:
        """Returns the capacity: captured steps hold wherever the rows have got to."""
        return self.capacity

    def reserve(self, extra: int) -> None:
        """Makes sure that `extra` more positions fit every row.

        Raises:
            ContextFull: they do not.
        """
        if self.capacity - extra < self.bound:
            self.lengths()  # after rewinding the bound may lie above the truth; only here is it worth a wait
        if self.bound + extra > self.capacity:
            raise ContextFull(
                f"The context holds {self.capacity} positions and {self.bound} are taken: "
                f"{extra} more do not fit."
            )

    def advance(self, count: int) -> None:
        """Counts `count` appended positions in every row."""
        self.length += count
        self.count_on_host(count)

    def count_on_host(self, count: int, rewinds: bool = False) -> None:
        """Counts appended positions in `bound` alone, when `length` has been raised already.

        `rewinds`: True where some of them may have been taken back since.
        """
        self._lengths.count(count)
        if rewinds:
            self._lengths.shorten()

    def lengths(self) -> list[int]:
        """Returns each row's positions; asks the device only if the host does not know."""
        if (known := self._lengths.known) is None:
            known = self.length.tolist()
            self._lengths.note(known)
        return known

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
            self.past.reorder(parent, self.length, self.bound if self.on_host else self.capacity)
        if self.branches is not None:
            self.branches.reorder(parent)  # rows that share a prompt are level, so lengths stay
            return
        if self.on_host:
            parents = parent.tolist()
            moved = [row for row, p in enumerate(parents) if p != row]
            if not moved:
                return
            target = parent.new_tensor(moved)
            source = parent[target]
            for block in self._blocks:
                in_use = block[:, :, :, : self.bound]
                in_use[:, target] = in_use[:, source]
        else:
            for block in self._blocks:
                in_use = block[:, :, :, : self.span(0)]
                in_use.copy_(in_use.index_select(1, parent))
        self.length.copy_(self.length[parent])
        self._lengths.mix()
        self._look()

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on. A tensor, so that no host round trip is needed.

        Only a fork that shares asks the device: it stays one as long as its rows have as many positions
        beyond what they share.
        """
        if self.branches is not None:
            shortened: list[int] = self.length.minimum(length).tolist()
            if self.branches.is_level(shortened):
                self._start(shortened)
                return
            self.materialise()
        self.length.copy_(self.length.minimum(length))
        self._lengths.shorten()
        self._look()

    def resume(self, length: int) -> None:
        """Gives every row `length` positions again, of which nothing has been overwritten by other ids."""
        self._start([length] * self.rows)

    def fork(self, rows: int) -> FlatContext:
        """Makes a new context in which each row of this one has `rows` copies, side by side.

        One that shares needs the parent's rows as they are now, up to their present lengths; the parent may
        grow.
        """
        shared = self._layers, self.cos, self.sin, self.totals, self.share, self.whole
        return FlatContext(rows * self.rows, self.capacity, *shared, parent=self)

    def row(self, index: int) -> FlatContext:
        """Makes a context of one row that is a row of this one: positions and lengths are the same memory."""
        self.materialise()
        row = copy(self)
        row.rows, row._parent, row.states = 1, None, {}
        row.logits_out = row.replay = None
        row.length = self.length[index : index + 1]
        row._lengths = self._lengths.part(index, index + 1)
        row.past = self.past and self.past.row(index)
        row._lay(tuple(block[:, index : index + 1] for block in self._blocks))
        return row

    def adopt(self, index: int, other: Context, length: int) -> None:
        """Gives a row the first `length` positions of the one row of another context of the model."""
        assert isinstance(other, FlatContext), "a context of another model"
        row = self.row(index)
        for block, source in zip(row.blocks, other.blocks, strict=True):
            block[:, :, :, :length] = source[:, :, :, :length]
        row.resume(length)

    def refork(self) -> bool:
        """Makes a fork, at its old addresses, what forking its parent anew would give; False if it cannot."""
        parent = self._parent
        if parent is None:
            return False
        if self.branches is None:
            self._copy(parent)
            self._refill_past(parent)
            return True
        if not self.branches.restart(parent.lengths()):
            return False
        self._refill_past(parent)
        self._start(self.branches.starts)
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
        own = [(heads, width) for i, (source, heads, width) in enumerate(self._layers) if source == i]
        # Zeros, not empty: a masked position still meets its value, and 0 × NaN is NaN.
        self._lay(
            tuple(
                self.cos.new_zeros(own.count(shape), self.rows, shape[0], self.capacity, shape[1])
                for shape in dict.fromkeys(own)
            )
        )

    def _lay(self, blocks: tuple[Tensor, ...]) -> None:
        """Puts keys and values into blocks `[layers, R, 2 * Hkv, capacity, D]`, one for each shape."""
        self._blocks = blocks
        free = {(block.shape[2], block.shape[4]): iter(block) for block in blocks}
        kv: list[Tensor] = []
        for i, (source, heads, width) in enumerate(self._layers):
            kv.append(next(free[heads, width]) if source == i else kv[source])
        self._kv: tuple[Tensor, ...] = tuple(kv)
        if self.on_host:  # compiled steps read these
            self._cpp_refs = own_in_cpp((*self._blocks, self.length, self.cos, self.sin))

    def _copy(self, parent: FlatContext) -> None:
        """Fills the rows with copies of the parent's."""
        lengths, each = parent.lengths(), self.rows // parent.rows
        end = max(lengths)
        for block, source in zip(self._blocks, parent.blocks, strict=True):
            copies = block.view(len(block), len(lengths), each, *block.shape[2:])
            copies[:, :, :, :, :end] = source[:, :, None, :, :end]
        self._start([length for length in lengths for _ in range(each)])

    def _refill_past(self, parent: FlatContext) -> None:
        """Copies the parent's past states to every row."""
        if self.past is not None and parent.past is not None:
            self.past.refill(parent.past)

    def _start(self, lengths: Sequence[int]) -> None:
        """Gives each row a length that the host knows."""
        if min(lengths) == max(lengths):
            self.length.fill_(lengths[0])
        else:
            self.length.copy_(torch.tensor(lengths))
        self._lengths.note(lengths)

    def _look(self) -> None:
        """Reads lengths that were changed on the device again, where that needs no wait."""
        if self.on_host:
            self.lengths()
