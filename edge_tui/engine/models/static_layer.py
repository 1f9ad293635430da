"""Keeps a layer's keys and values in buffers of a static context, as a cache layer of transformers.

transformers' own static layers count positions each for itself, so that rewinding would have to set all of
them, span their whole buffers, and roll those of windows. Here all layers of a context read one `Window`.
Imported only once a model of the transformers tier is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers.cache_utils import StaticLayer

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(slots=True)
class Window:
    """Says where a forward's new positions go, and how far it looks.

    Attributes:
        length: int64 scalar on the device, positions before the new ones.
        at: int64 `[K]` on the device, the new positions.
        span: Positions that attention looks at; masks hide those after the new ones.
    """

    length: Tensor
    at: Tensor
    span: int


class SharedLayer(StaticLayer):  # type: ignore[misc]
    """Writes to slices of a context's buffers, `[R, H, capacity, D]`."""

    def __init__(self, keys: Tensor, values: Tensor, window: Window) -> None:
        super().__init__(keys.shape[2])
        self.keys, self.values, self._window = keys, values, window
        self.dtype, self.device = keys.dtype, keys.device
        self.batch_size, self.num_heads = keys.shape[:2]
        self.cumulative_length = window.length
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *_args: Any, **_named: Any
    ) -> tuple[Tensor, Tensor]:
        """Stores new keys and values `[R, H, K, D]`, and returns all that attention looks at."""
        at, span = self._window.at, self._window.span
        self.keys.index_copy_(2, at, key_states)
        self.values.index_copy_(2, at, value_states)
        return self.keys[:, :, :span], self.values[:, :, :span]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Returns how many keys a mask covers, and the first of them."""
        return self._window.span, 0

    def get_seq_length(self) -> Tensor:
        """Returns the positions before the new ones, which only the device knows."""
        return self._window.length

    def get_max_length(self) -> int:
        """Returns the keys that `update` gives."""
        return self._window.span

    get_max_cache_shape = get_max_length
    """As older versions of transformers call it."""
