"""How much of its memory a GPU fetches at once."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import device

LINE = 128
"""Bytes of a line of the second-level cache, the most that can be asked for."""
GRANULARITY = 5
"""CUDA's name for it, `CU_LIMIT_MAX_L2_FETCH_GRANULARITY`."""


def fetch_whole_lines(where: device) -> None:
    """Has a GPU bring whole lines into its cache, where the driver's default is half of one.

    A matrix product on tensor cores reads 64 bytes of a row at a time and the rest of the line a little
    later, which costs the memory two accesses for one. It holds for all that this process does on the device,
    and is a hint: where the driver does not take it, steps are a little slower.
    """
    import torch

    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver by that name
        return
    with torch.cuda.device(where):
        driver.cuCtxSetLimit(GRANULARITY, ctypes.c_size_t(LINE))
