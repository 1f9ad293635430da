"""Measures how many CPU threads a decode step should use: two can be five times slower than one.

A step of a small model is hundreds of operations of a few microseconds; with another busy process on the
machine each of them waits for the slower thread. A step of a large one waits for memory, of which two
processors read almost twice as much as one.

The number stays for as long as the model does: sums are not the same to the last bit with another one, so
changing it under way would make a run with a seed tell another story.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_tui.engine.models.base import LanguageModel

_STEPS = 4
_TURN = 0.05
"""Seconds after which a turn has had steps enough, if there were fewer."""
_ROUNDS = 3
BUDGET = 1.0
"""Seconds after which no third round begins: two are needed, as the first one prepares kernels."""
_LONG = 0.01
"""Seconds from which on a step counts as long: a hundred a second, more than a screen is painted."""
_SHARE = 0.65
"""More threads must take less than this share of the time: the screen, too, needs a core to run on, and takes
up to a third of it where each of its frames has many new tokens to show."""
_SHARE_IF_LONG = 0.85
"""The same for long steps, beside which the screen has little to do. Of Qwen2-0.5B's, on two cores, two
threads take 0.57 (4 bits) to 0.63 (float32) of the time of one, and 0.65 to 0.7 with a fifth of a core taken
away; of the demo's 1.5 ms 0.76, and 0.87."""


def probe(model: LanguageModel) -> int:
    """Times decode steps at one thread and more, and leaves torch at the fastest setting.

    Args:
        model: A model on the CPU.

    Returns:
        The number of threads chosen. `OMP_NUM_THREADS`, if set, is taken at its word.
    """
    import torch

    if setting := os.environ.get("OMP_NUM_THREADS", ""):
        return int(setting) if setting.isdigit() else torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    counts = thread_counts(cores)
    best = dict.fromkeys(counts, float("inf"))
    with torch.inference_mode():
        context = model.open(1, 1 + _ROUNDS * _STEPS * len(counts))
        token = torch.zeros(1, 1, dtype=torch.int64)
        model.prefill(context, token)
        start = perf_counter()
        for number in range(_ROUNDS):  # interleaved, so that a passing load hits every candidate
            if number > 1 and perf_counter() - start > BUDGET:
                break
            for count in counts:
                torch.set_num_threads(count)
                best[count] = min(best[count], _step(lambda: model.forward(context, token)))
    chosen = choose(best)
    torch.set_num_threads(chosen)
    return chosen


def threads_in_use() -> int:
    """Returns the number of threads that torch computes with now."""
    import torch

    return torch.get_num_threads()


def choose(seconds: Mapping[int, float]) -> int:
    """Chooses the number of threads.

    Args:
        seconds: Of a step with so many threads, from 1 upwards.
    """
    share = _SHARE_IF_LONG if seconds[1] >= _LONG else _SHARE
    chosen = 1
    for count, duration in seconds.items():
        if duration < share * seconds[chosen]:
            chosen = count
    return chosen


def _step(forward: Callable[[], object]) -> float:
    """Measures the seconds of a step, over as many as a turn has."""
    began = perf_counter()
    done, duration = 0, 0.0
    while done < _STEPS and duration < _TURN:
        forward()
        done, duration = done + 1, perf_counter() - began
    return duration / done


def thread_counts(cores: int) -> list[int]:
    """Lists 1, 2, 4 … up to the number of cores."""
    return sorted({*(1 << i for i in range(cores.bit_length())), cores})
