"""Holds the buffers in which the pieces of one head's attention meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MAX_SPLITS = 64
"""Most pieces that the keys of one head are cut into."""

CPU_PROGRAMS = 8
"""Programs under Triton's interpreter, where nothing is gained by them but the test of joining them."""


class Scratch:
    """Holds the partial results of one head's attention, for the program that joins them.

    Calls that follow one another on a stream, such as a model's layers, can share one.

    Attributes:
        programs: Programs that keep the whole device busy; keys are cut into as many pieces as gives them.
        partial: float32, with room for `[R, Hkv, splits, G * K, D]`: each piece's own result.
        weight: float32, with room for `[R, Hkv, splits, G * K]`: binary logarithm of the sum it stands for.
        arrived: int32 `[R * H]`, pieces that are done; all zero between calls.
    """

    __slots__ = ("arrived", "partial", "programs", "weight")

    def __init__(
        self,
        rows: int,
        k: int,
        heads: int,
        head_dim: int,
        device: str | torch.device,
        programs: int | None = None,
    ) -> None:
        import torch

        device = torch.device(device)
        if programs is None:
            programs = CPU_PROGRAMS
            if device.type == "cuda":
                programs = torch.cuda.get_device_properties(device).multi_processor_count
        self.programs = programs
        results = heads * k * max(min(programs, MAX_SPLITS * rows), rows)
        self.partial = torch.empty(results * head_dim, dtype=torch.float32, device=device)
        self.weight = torch.empty(results, dtype=torch.float32, device=device)
        self.arrived = torch.zeros(rows * heads, dtype=torch.int32, device=device)

    def splits(self, rows: int, kv_heads: int) -> int:
        """Returns the most pieces that the keys of one head are cut into."""
        return max(1, min(self.programs // (rows * kv_heads), MAX_SPLITS))
