"""Holds the state of a decode on the transformers tier in buffers that keep their addresses.

So steps can be captured. All rows have one length, which lies on the device; rewinding sets it. The module's
masks make attention read all that it is given, so it is given the first `span` positions only: a power of
two, and graphs hold for one of them.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.models.base import ContextFull
from edge_tui.engine.models.row_lengths import RowLengths
from edge_tui.engine.models.static_layer import SharedLayer, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from edge_tui.engine.models.layer_states import PastStates

LEAST_SPAN = 256
"""Positions that attention of a short context spans."""
Side = tuple[int, int, torch.dtype]
"""Heads, width of a head and dtype of a layer's keys or values."""


class NotStatic(Exception):
    """A cache holds something else than keys and values by position; says what."""


@dataclass(frozen=True)
class CacheLayout:
    """Describes a module's cache.

    Attributes:
        layers: Keys and values of each layer; for one that stores none, the empty layer itself.
        device: Where they lie.
    """

    layers: tuple[tuple[Side, Side] | Any, ...]
    device: torch.device

    @classmethod
    def of(cls, cache: Any, device: torch.device) -> CacheLayout:
        """Reads the layout off a cache that has stored one position of one row.

        Raises:
            NotStatic: it holds something else.
        """
        layers: list[Any] = []
        for layer in cache.layers:
            pair = [getattr(layer, name, None) for name in ("keys", "values")]
            kept = [each for each in pair if isinstance(each, torch.Tensor)]
            if pair == [None, None]:
                layers.append(layer)
                continue
            is_plain = type(layer).__name__ == "DynamicLayer" and len(kept) == 2
            if not is_plain or any(each.dim() != 4 or each.shape[::2] != (1, 1) for each in kept):
                raise NotStatic(f"its cache has layers of a kind of their own ({type(layer).__name__})")
            layers.append(tuple((each.shape[1], each.shape[3], each.dtype) for each in kept))
        if not any(isinstance(layer, tuple) for layer in layers):
            raise NotStatic("it keeps no keys and values")
        return cls(tuple(layers), device)

    def allocate(self, rows: int, capacity: int) -> dict[Side, Tensor]:
        """Makes buffers `[count, R, H, capacity, D]` for all keys and values, those of one shape together.

        Zeros, not empty: a masked position still meets its value, and 0 × NaN is NaN.
        """
        sides = [side for layer in self.layers if isinstance(layer, tuple) for side in layer]
        return {
            side: torch.zeros(
                sides.count(side), rows, side[0], capacity, side[1], dtype=side[2], device=self.device
            )
            for side in dict.fromkeys(sides)
        }

    def cache(self, blocks: dict[Side, Tensor], window: Window) -> Any:
        """Makes the cache that a module reads, on such buffers."""
        from transformers.cache_utils import Cache

        free = {side: iter(block) for side, block in blocks.items()}
        return Cache(
            layers=[
                SharedLayer(next(free[layer[0]]), next(free[layer[1]]), window)
                if isinstance(layer, tuple)
                else copy.deepcopy(layer)
                for layer in self.layers
            ]
        )


class StaticContext:
    """Holds keys and values of `rows` sequences of one length, as a `CapturableContext`.

    Attributes:
        rows: Number of rows `R`.
        capacity: Most positions of a row.
        length: int64 `[R]` on the device, the same number for each row; updated in place.
        totals: Every length of a run: rotary factors never change within this tier's contexts.
        cache: The `Cache` that the module reads.
        logits_out: The tensor that a forward puts its logits `[R, K, V]` into; None where it allocates one.
        needs: Outputs of forwards beside logits; layers counted from 0.
        past: Hidden states of all positions; None where they are not kept.
    """

    totals = range(sys.maxsize)

    def __init__(
        self, rows: int, capacity: int, layout: CacheLayout, parent: StaticContext | None = None
    ) -> None:
        """Makes an empty context, or a fork of `parent`, which has the same layout and fewer rows."""
        self.rows = rows
        self.capacity = capacity
        self.length = torch.zeros(rows, dtype=torch.int64, device=layout.device)
        self._layout = layout
        self._lengths = RowLengths(1)
        self._blocks = layout.allocate(rows, capacity)
        self._window = Window(self.length[0], self.length[:0], 0)
        self.cache = layout.cache(self._blocks, self._window)
        self.logits_out: Tensor | None = None
        self.needs = Needs()
        self.past: PastStates | None = None
        self._parent = parent
        self._outputs: dict[tuple[Needs, int], Output] = {}
        self._replays: dict[int, Callable[[Tensor], Tensor]] = {}
        if parent is not None:
            self.needs = parent.needs
            self.past = parent.past and parent.past.fork(rows // parent.rows)
            self._copy(parent)

    @property
    def bound(self) -> int:
        """Upper bound of `length` that the host knows without asking the device."""
        return self._lengths.bound

    @property
    def replay(self) -> Callable[[Tensor], Tensor] | None:
        """Appends one id `[1, 1]` by replaying a step captured for the present span; None before one is."""
        return self._replays.get(self._window.span)

    @replay.setter
    def replay(self, replay: Callable[[Tensor], Tensor]) -> None:
        self._replays[self._window.span] = replay

    def lengths(self) -> list[int]:
        """Returns each row's positions; asks the device only if the host does not know."""
        if self._lengths.known is None:
            self._lengths.note([int(self.length[0])])
        return [self.bound] * self.rows

    def reserve(self, extra: int) -> None:
        """Makes sure that `extra` more positions fit every row.

        Raises:
            ContextFull: they do not.
        """
        if self.bound + extra > self.capacity:
            self.lengths()  # after rewinding the bound may lie above the truth; only here is it worth a wait
        if self.bound + extra > self.capacity:
            need = self.bound + extra
            raise ContextFull(f"{need} positions are needed, but the context holds {self.capacity}.")

    def widen(self, extra: int) -> int:
        """Makes attention of the next steps span what `extra` more positions need; returns that span.

        Asks the device for the length before it moves up, if the host does not know it.
        """
        if (span := self._span(extra)) > self._window.span and self._lengths.known is None:
            self.lengths()
            span = self._span(extra)
        self._window.span = span
        return span

    def _span(self, extra: int) -> int:
        need = max(self.bound + extra, LEAST_SPAN)
        return min(1 << (need - 1).bit_length(), self.capacity)

    def begin(self, count: int, exact: bool = False) -> Tensor:
        """Makes room for `count` new positions, and returns them: int64 `[K]` on the device.

        Args:
            count: `K`.
            exact: True lets attention span no more than the last of them, which no captured step may.
        """
        self.reserve(count)
        if exact:
            self._window.span = self.bound + count
        elif self._span(count) > self._window.span:
            self.widen(2 * count)  # as a captured step has it
        self._window.at = self.length[0] + torch.arange(count, device=self.length.device)
        return self._window.at

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

    def reorder(self, parent: Tensor) -> None:
        """Gives row `r` what row `parent[r]` had. `parent`: int64 `[R]` on the device."""
        end = max(self._window.span, self.bound)
        if self.past is not None:
            self.past.reorder(parent, self.length, end)
        for block in self._blocks.values():
            in_use = block[:, :, :, :end]
            in_use.copy_(in_use.index_select(1, parent))

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on. A tensor, so that no host round trip is needed.

        Raises:
            ValueError: rows would differ in length.
        """
        if self.rows > 1 and len(set(self.length.minimum(length).tolist())) > 1:
            raise ValueError("The rows of this model's contexts have one length.")
        self.length.copy_(self.length.minimum(length))
        self._lengths.shorten()

    def resume(self, length: int) -> None:
        """Gives every row `length` positions again, of which nothing has been overwritten by other ids."""
        self.length.fill_(length)
        self._lengths.note([length])

    def fork(self, rows: int) -> StaticContext:
        """Makes a new context in which each row of this one has `rows` copies, side by side."""
        return StaticContext(rows * self.rows, self.capacity, self._layout, self)

    def refork(self) -> bool:
        """Makes a fork, at its old addresses, what forking its parent anew would give; False if it cannot."""
        if self._parent is None:
            return False
        if self.past is not None and self._parent.past is not None:
            self.past.refill(self._parent.past)
        self._copy(self._parent)
        return True

    def _copy(self, parent: StaticContext) -> None:
        """Fills the rows with copies of the parent's."""
        end = parent.lengths()[0]
        for side, block in self._blocks.items():
            source = parent._blocks[side][:, :, :, :end]
            each = block.view(len(block), parent.rows, -1, *block.shape[2:])
            each[:, :, :, :, :end] = source[:, :, None]
        self.resume(end)

    def output(self, tensors: dict[str, Tensor], k: int) -> Output:
        """Stores the `k` newest positions' states, and builds a forward's result.

        What comes beside logits lies where it lay in the last forward, because captured steps read it there.
        """
        past = None
        if self.past is not None:
            self.past.append(tensors.pop("past"), self.length, k)
            past = self.past.states if self.needs.past else None
        if not self.needs.layers and past is None:
            logits = tensors["logits"]
            return Output(logits if self.logits_out is None else self.logits_out.copy_(logits))
        key = self.needs, tensors["logits"].shape[1]
        if key not in self._outputs:
            length = None if past is None else self.length
            held = {name: tensor.clone() for name, tensor in tensors.items()}
            self._outputs[key] = Output(**held, past=past, past_length=length)
            return self._outputs[key]
        for name, tensor in tensors.items():
            getattr(self._outputs[key], name).copy_(tensor)
        return self._outputs[key]
