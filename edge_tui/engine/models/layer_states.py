"""Holds hidden states that strategies read: of named layers at one call, and the last one of every position.

They lie in buffers that keep their addresses, so that captured steps can write to them and be replayed.
Shapes: `R` rows, `K` positions of a call, `N = R * K`, `D` width of the residual stream, `V` vocabulary,
`E` early layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.ops import past_states

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class PastStates:
    """Keeps what the head reads, the last layer after the final norm, of every position of each row.

    Attributes:
        states: `[R, capacity, D]` in the compute dtype; what lies beyond a row's length is any number.
        shared: int64 `[2]`, up to where all rows are the same; see `ops.past_states`.
    """

    def __init__(self, states: Tensor, shared: Tensor | None = None) -> None:
        self.states = states
        self.shared = torch.zeros(2, dtype=torch.int64, device=states.device) if shared is None else shared

    def append(self, states: Tensor, length: Tensor, k: int) -> None:
        """Stores the newest `k` positions.

        Args:
            states: `[R * k, D]` or `[R, k, D]`; Mamba's are float32 in every precision.
            length: int64 `[R]`, positions of each row, these among them.
            k: Positions of each row.
        """
        new = states.reshape(-1, states.shape[-1]).to(self.states.dtype)
        past_states.append(self.states, new, length, k, self.shared)

    def reorder(self, parent: Tensor, length: Tensor, end: int) -> None:
        """Gives row `r` what row `parent[r]` has.

        Args:
            parent: int64 `[R]`.
            length: int64 `[R]`, positions of each row.
            end: At least the greatest of them, as the host knows it.
        """
        past_states.reorder(self.states, parent, length, self.shared, end)

    def fork(self, rows: int) -> PastStates:
        """Copies each row `rows` times, side by side."""
        return PastStates(self.states.repeat_interleave(rows, 0))

    def row(self, index: int) -> PastStates:
        """Selects one row, in the same memory."""
        return PastStates(self.states[index : index + 1], self.shared)

    def refill(self, parent: PastStates) -> None:
        """Does in place what forking the parent anew would give."""
        self.shared.zero_()
        self.states.copy_(parent.fork(len(self.states) // len(parent.states)).states)


class LayerStates:
    """Collects from one forward what `Needs` declares of it, and the rows that the head multiplies.

    Each layer needed has a slot, and what the head reads for the logits the last one. Early layers lie before
    it, so that their logits are rows of the same product.

    Args:
        needs: Layers counted from 0.
        rows: `R`.
        k: `K`; of a longer call the last `K` positions count.
        last: Number of the last layer, whose state is taken after the final norm.
        like: Its dtype and device are those of the slots.
        width: `D`.
        end_width: Width of the state that the head reads.
        keeps_past: True where the context keeps past states.

    Attributes:
        layers: The layer of each slot but the last one: those of `needs.hidden`, then of `needs.early`.
        slots: `[len(layers) + 1, N, D]`.
        ends: What the head reads: the early layers' states, then the last one's; `[E + 1, N, end_width]`. The
            last slots, unless their width is another.
        early: `E`.
        normed: True where early layers go through the final norm.
        reads_last: True where somebody besides the head reads the last slot.
        product: float32 `[(E + 1) * N, V]`, where the head's product lies on an accelerator; None before the
            first one.
    """

    def __init__(
        self,
        needs: Needs,
        rows: int,
        k: int,
        last: int,
        like: Tensor,
        width: int,
        end_width: int,
        keeps_past: bool,
    ) -> None:
        self.layers = [*needs.hidden, *needs.early]
        self.reads_last = keeps_past or last in needs.hidden
        self.early, self.normed = len(needs.early), needs.early_norm
        self.product: Tensor | None = None
        self.slots = like.new_zeros(len(self.layers) + 1, rows * k, width)
        self.ends = self.slots[-1 - self.early :]
        self._projects = end_width != width
        if self._projects:
            self.ends = like.new_zeros(self.early + 1, rows * k, end_width)
        self._shape, self._last, self._needs = (rows, k), last, needs
        self._output: Output | None = None

    @property
    def to_head(self) -> Tensor:
        """The head's input `[(E + 1) * N, D]`: the early layers' states, then the last one's."""
        return self.ends.flatten(0, 1)

    def write(self, layer: int, x: Tensor) -> None:
        """Copies the residual stream after a layer, `[R * K', D]` with `K' >= K`, to the layer's slots."""
        for slot, wanted in zip(self.slots, self.layers, strict=False):
            if wanted == layer != self._last:
                slot.copy_(self._newest(x))

    def place(self, layer: int, x: Tensor) -> Tensor:
        """Returns where a kernel may write the residual stream after a layer: the layer's slot, or `x`.

        The last layer's is the last slot. A layer that is needed twice has its second copy from `share`.
        """
        if layer == self._last:
            return self.slots[-1]
        return self.slots[self.layers.index(layer)] if layer in self.layers else x

    def share(self) -> None:
        """Copies the state of a layer that is needed twice from its first slot to the second."""
        for place, layer in enumerate(self.layers):
            if (first := self.layers.index(layer)) < place:
                self.slots[place].copy_(self.slots[first])

    def finish(self, x: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Fills the ends; returns what the head multiplies, `[(E + 1) * N, end_width]`.

        Args:
            x: `[R * K', end_width]`, what the head reads of the last layer.
            read: Makes what the head reads of an early layer's state: the final norm, where `normed`, and a
                matrix where widths differ.
        """
        self.ends[-1].copy_(self._newest(x))
        if self.early and (self.normed or self._projects):
            early = self.slots[-1 - self.early : -1]
            self.ends[:-1].copy_(read(early.flatten(0, 1)).view_as(self.ends[:-1]))
        return self.to_head

    def output(self, product: Tensor, past: PastStates | None, length: Tensor) -> Output:
        """Builds a forward's result.

        Args:
            product: `[(E + 1) * N, V]`, the head's product with `to_head`.
            past: Of the context.
            length: int64 `[R]`, positions of each row.
        """
        for slot, wanted in zip(self.slots, self.layers, strict=False):
            if wanted == self._last and not self._projects:
                slot.copy_(self.ends[-1])
        if product.device.type == "cpu":  # no graph knows its address
            return self._lay_out(product, past, length)
        if self.product is None or self._output is None:
            self.product = product.float()
            self._output = self._lay_out(self.product, past, length)
        elif product is not self.product:
            self.product.copy_(product)
        return self._output

    def _lay_out(self, product: Tensor, past: PastStates | None, length: Tensor) -> Output:
        """Takes apart the slots and the product, `[(E + 1) * N, V]`, without a copy."""
        layers = len(self._needs.hidden)
        z = product.view(self.early + 1, *self._shape, -1)
        slots = self.slots
        if self._projects and self._last in self._needs.hidden:
            slots = self.ends[-1:].expand(layers, -1, -1)  # `Caps.mixes` is False: it is the only one
        hidden = slots[:layers].view(layers, *self._shape, -1) if layers else None
        return Output(
            z[-1],
            None if hidden is None else hidden.permute(1, 2, 0, 3),
            z[:-1].permute(1, 2, 0, 3) if self.early else None,
            past.states if past is not None and self._needs.past else None,
            length if self._needs.past else None,
        )

    def _newest(self, x: Tensor) -> Tensor:
        """Selects the last `K` positions of each row, `[N, D]`."""
        rows, k = self._shape
        return x.view(rows, -1, x.shape[-1])[:, -k:].reshape(rows * k, -1)
