"""Copies between host and device, where each one that is waited for costs more than what it carries.

A copy to a GPU that is not told to go on by itself waits for all work before it, and so does each number
that is read. So numbers go there in stream order, and come back together.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor


def to_device(values: Sequence[object], dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Makes a tensor of numbers, nested or not, without waiting for the device."""
    import torch

    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)


def read(*tensors: Tensor) -> list[list[float]]:
    """Reads tensors of one device with a single wait.

    Args:
        tensors: Of any shape and type; int64 up to 2⁵³.

    Returns:
        The numbers of each, flattened.
    """
    import torch

    numbers = iter(torch.cat([tensor.reshape(-1).double() for tensor in tensors]).cpu().tolist())
    return [list(islice(numbers, tensor.numel())) for tensor in tensors]
