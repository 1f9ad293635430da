"""How many CPU threads a decode step should use: measured, because two can be five times slower than one.

A step of a small model is hundreds of operations of a few microseconds; with another busy process on the
machine each of them waits for the slower thread.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge_tui.engine.models.base import LanguageModel

_STEPS = 4
_ROUNDS = 3
_WORTH = 0.65
"""More threads must take less than this share of the time: the screen, too, needs a core to run on."""


def probe(model: LanguageModel) -> int:
    """Times decode steps at one thread and more, and leaves torch at the fastest setting.

    Args:
        model: A model on the CPU.

    Returns:
        The number of threads chosen. `OMP_NUM_THREADS`, if set, is taken at its word.
    """
    import torch

    if given := os.environ.get("OMP_NUM_THREADS", ""):
        return int(given) if given.isdigit() else torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    best: dict[int, float] = {}
    with torch.inference_mode():
        context = model.open(1, 1 + _ROUNDS * _STEPS * 8)
        token = torch.zeros(1, 1, dtype=torch.int64)
        model.prefill(context, token, torch.ones(1, dtype=torch.int64))
        for _ in range(_ROUNDS):  # interleaved, so that a passing load hits every candidate
            for count in _candidates(cores):
                torch.set_num_threads(count)
                began = time.perf_counter()
                for _ in range(_STEPS):
                    model.forward(context, token)
                best[count] = min(best.get(count, float("inf")), time.perf_counter() - began)
    chosen = 1
    for count, seconds in best.items():
        if seconds < _WORTH * best[chosen]:
            chosen = count
    torch.set_num_threads(chosen)
    return chosen


def _candidates(cores: int) -> list[int]:
    """1, 2, 4 … up to the number of cores."""
    counts = [1]
    while counts[-1] * 2 <= cores:
        counts.append(counts[-1] * 2)
    return counts if counts[-1] == cores else [*counts, cores]
