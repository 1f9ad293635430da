"""Tells where attention to a prompt needs a mask, and where torch's flash kernel does without one.

The flat decoder makes its masks by this, and the memory estimate counts them. Importing it loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDEST = 256
"""Width of the widest head of torch's flash kernel."""
_FIRST = (8, 0)
"""First NVIDIA generation (Ampere) that it runs on."""


def flash_runs(capability: tuple[int, int] | None, number_bytes: int, head_dim: int) -> bool:
    """Tells whether torch's flash kernel runs, which hides the keys after each query without a mask.

    Args:
        capability: Of the GPU; None where it is unknown, and on other devices.
        number_bytes: Bytes of a number of the compute dtype.
        head_dim: Width of the widest head.
    """
    fits = number_bytes == 2 and head_dim % 8 == 0 and head_dim <= _WIDEST
    return fits and capability is not None and capability >= _FIRST


def needs_mask(windows: Iterable[int], start: int, k: int, *, alibi: bool, later_hidden: bool) -> bool:
    """Tells whether `k` positions from `start` on need a mask, where each sees those up to its own.

    Args:
        windows: Positions that a query sees, its own included, by layer; 0 means all.
        start: Positions before the first query.
        k: Queries.
        alibi: Whether distances have a penalty.
        later_hidden: Whether attention hides the keys after each query by itself.
    """
    in_windows = all(window == 0 or start + k <= window for window in windows)
    plain = k == 1 or (in_windows and (start == 0 or later_hidden))
    return alibi or not plain
