"""Holds the GPU that tensors without memory stand for, in a process that lists kernels."""

from __future__ import annotations

capability: tuple[int, int] | None = None
"""Its compute capability; None in every other process."""


def stands_for_gpu(device: str) -> bool:
    """Tells whether a device, "meta", stands for a GPU."""
    return device == "meta" and capability is not None
