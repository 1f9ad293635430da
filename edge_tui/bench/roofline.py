"""The floor of a decode step: reading the weights and the live keys and values once.

Nothing that decodes one sequence can be faster, whatever it does, so a step's share of the floor says what
is left to gain. The bandwidth is what this device does now, in this process, not what its data sheet says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_tui.engine.models.base import ModelInfo

_GPU_BYTES = 8 << 30
_CPU_BYTES = 256 << 20


def read_bandwidth(device: str) -> float:
    """Bytes a second that a big reduction reads: the best of several kinds, each tried several times."""
    import torch

    wanted = _CPU_BYTES
    if device.startswith("cuda"):
        wanted = min(_GPU_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    width = 8192
    rows = max(1, wanted // (2 * width))
    best = 0.0
    with torch.inference_mode():
        block = torch.ones(rows, width, dtype=torch.bfloat16, device=device)
        vector = torch.ones(width, dtype=torch.bfloat16, device=device)
        as_float, as_int = block.view(torch.float32), block.view(torch.int32)
        readers: list[Callable[[], object]] = [
            lambda: as_float.sum(),
            lambda: as_float.sum(1),
            lambda: as_int.amax(),
            lambda: torch.mv(block, vector),
        ]
        for reader in readers:
            best = max(best, block.nbytes / _fastest(reader, device))
    return best


def _fastest(work: Callable[[], object], device: str, rounds: int = 5) -> float:
    """Seconds of a call in the fastest of several rounds, after one that does not count.

    On a GPU a round is many calls: launching and waiting would pass for a lower bandwidth, and with it for a
    higher share of the floor.
    """
    calls = 16 if device.startswith("cuda") else 1
    seconds = []
    for _ in range(rounds + 1):
        synchronise(device)
        began = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise(device)
        seconds.append((time.perf_counter() - began) / calls)
    return min(seconds[1:])


def synchronise(device: str) -> None:
    """Waits for a GPU to finish what it was given; nothing on a CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def step_weights(info: ModelInfo, config: Mapping[str, Any]) -> int:
    """Bytes of weights that one step reads: all but the embedding, of which it reads a row.

    A head that is the embedding is read in full. On a CPU quantised models have a head of their own, and
    their embedding keeps 16 bits.
    """
    own = info.device == "cpu" and info.tier == "flat" and info.precision in ("int8", "4bit")
    if config.get("tie_word_embeddings") and not own:
        return info.weight_bytes
    width = 4 if info.dtype == "float32" and not own else 2
    return info.weight_bytes - info.vocab * int(config["hidden_size"]) * width


def step_cache(info: ModelInfo, prompt: int, tokens: int, rows: int) -> float:
    """Bytes of keys and values that a step reads on average: the prompt's once, then those of each row."""
    return info.kv_bytes * (prompt + rows * tokens / 2)
