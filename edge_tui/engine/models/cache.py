"""The state of a decode on the flat tier: keys and values, and how far each row has got.

Everything is allocated once, and every change happens in place, so addresses hold inside captured graphs.
Rows may differ in length. Rewinding only forgets a number: old keys stay until they are overwritten, and
masks keep them from being seen (which is also why windowed layers keep everything).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.engine.models.base import ContextFull

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BUCKET = 256
"""On an accelerator attention spans a multiple of this, so that shapes rarely change."""


class FlatContext:
    """Keys and values of `rows` sequences.

    Attributes:
        rows: Number of rows `R`.
        capacity: Most positions of a row.
        length: int64 `[R]` on the device, positions held by each row; updated in place.
        kv: For each layer `[R, 2 * Hkv, capacity, D]`, keys first.
        keys: For each layer the view `[R, Hkv, capacity, D]`.
        values: The same for values.
        cos: `[capacity, rotary]`, the run's rotary table.
        sin: The same for signed sines.
        bound: Upper bound of `length` that the host knows without asking the device.
        uniform: Whether the host knows that every row is exactly `bound` long.
    """

    def __init__(
        self,
        rows: int,
        capacity: int,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        cos: Tensor,
        sin: Tensor,
        device: str | torch.device,
        dtype: torch.dtype,
    ) -> None:
        import torch

        self.rows = rows
        self.capacity = capacity
        self.length = torch.zeros(rows, dtype=torch.int64, device=device)
        # Zeros, not empty: a masked position still meets its value, and 0 × NaN is NaN.
        block = torch.zeros(layers, rows, 2 * kv_heads, capacity, head_dim, dtype=dtype, device=device)
        self.kv: tuple[Tensor, ...] = tuple(block)
        self.keys = tuple(layer[:, :kv_heads] for layer in self.kv)
        self.values = tuple(layer[:, kv_heads:] for layer in self.kv)
        self.cos = cos
        self.sin = sin
        self.bound = 0
        self.uniform = True
        self._known: list[int] | None = None
        self.on_host = self.length.device.type == "cpu"
        self._block = block
        self._row_index = torch.arange(rows, device=device)[:, None]

    def span(self, extra: int) -> int:
        """Positions that attention must look at once `extra` more are appended."""
        end = self.bound + extra
        if self.on_host:
            return end
        return min(-(-end // BUCKET) * BUCKET, self.capacity)

    def reserve(self, extra: int) -> None:
        """Makes sure that `extra` more positions fit every row.

        Raises:
            ContextFull: they do not.
        """
        if self.bound + extra > self.capacity and not self.uniform:
            self._learn()  # after rewinding the bound may lie above the truth; only here is it worth a wait
        if self.bound + extra > self.capacity:
            raise ContextFull(
                f"The context holds {self.capacity} positions and {self.bound} are taken: "
                f"{extra} more do not fit."
            )

    def advance(self, count: int) -> None:
        """Counts `count` appended positions in every row."""
        self.length += count
        self.note(count)

    def note(self, count: int) -> None:
        """The host's half of `advance`, for when `length` has been raised already."""
        self.bound += count
        self._known = None

    def extend(self, counts: list[int]) -> None:
        """Counts `counts[r]` appended positions in row `r`; the host knows them, so it keeps knowing."""
        before = self.lengths()
        self.length += self.length.new_tensor(counts)
        after = [a + b for a, b in zip(before, counts, strict=True)]
        self.bound = max(after)
        self.uniform = min(after) == self.bound
        self._known = None if self.uniform else after

    def lengths(self) -> list[int]:
        """Positions held by each row; asks the device only where the host does not know."""
        if self.uniform:
            return [self.bound] * self.rows
        if self._known is None:
            self._learn()
        return [self.bound] * self.rows if self._known is None else self._known

    def write(self, layer: int, kv: Tensor, positions: Tensor) -> None:
        """Stores keys and values.

        Args:
            layer: Index of the layer.
            kv: `[R, K, 2 * Hkv, D]`, keys first.
            positions: int64 `[R, K]`.
        """
        self.kv[layer][self._row_index, :, positions] = kv

    def write_some(self, layer: int, kv: Tensor, positions: Tensor, row: Tensor, column: Tensor) -> None:
        """Stores the keys and values of some of the new positions, named by row and column."""
        self.kv[layer][row, :, positions[row, column]] = kv[row, column]

    def reorder(self, parent: Tensor) -> None:
        """Row `r` becomes what row `parent[r]` was. `parent`: int64 `[R]` on the device."""
        if self.on_host:
            parents = parent.tolist()
            moved = [row for row, p in enumerate(parents) if p != row]
            if not moved:
                return
            target = parent.new_tensor(moved)
            source = parent[target]
            live = self._block[:, :, :, : self.bound]
            live[:, target] = live[:, source]
        else:
            live = self._block[:, :, :, : self.span(0)]
            live.copy_(live.index_select(1, parent))
        self.length.copy_(self.length[parent])
        self._forget()

    def truncate(self, length: Tensor) -> None:
        """Forgets positions from `length[r]` on. A tensor, so that no host round trip is needed."""
        self.length.copy_(self.length.minimum(length))
        self.uniform = False
        self._forget()

    def fork(self, rows: int) -> FlatContext:
        """A new context of `rows` rows, each a copy of row 0."""
        layers, _, width, capacity, head_dim = self._block.shape
        copy = FlatContext(
            rows,
            capacity,
            layers=layers,
            kv_heads=width // 2,
            head_dim=head_dim,
            cos=self.cos,
            sin=self.sin,
            device=self._block.device,
            dtype=self._block.dtype,
        )
        copy._block[:, :, :, : self.bound] = self._block[:, :1, :, : self.bound]
        copy.length.copy_(self.length[:1].expand(rows))
        copy.bound, copy.uniform = self.bound, self.uniform
        copy._forget()
        return copy

    def _forget(self) -> None:
        """Lengths have changed on the device: look again where that is free."""
        self._known = None
        if self.on_host and not self.uniform:
            self._learn()

    def _learn(self) -> None:
        """Asks the device for the exact lengths."""
        lengths: list[int] = self.length.tolist()
        self.bound = max(lengths)
        self.uniform = min(lengths) == self.bound
        self._known = None if self.uniform else lengths
