"""Reads a device's allocated memory, and returns what is cached there but not used."""

from __future__ import annotations

import gc

from edge_tui.engine.port import Memory


def release_cached_memory() -> None:
    """Collects garbage and returns to the devices what the allocators cache and nobody uses."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def memory_of(device: str) -> Memory:
    """Reads a device's memory from the allocator; on a CPU the process's resident set."""
    if device.startswith("cuda"):
        import torch

        return Memory(device, torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device))
    import psutil

    return Memory(device, psutil.Process().memory_info().rss, None)
