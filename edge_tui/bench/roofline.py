"""Computes the roofline of a decode step: the time to read the weights and the live keys and values once.

Nothing that decodes one sequence can be faster, so a step's share of the roofline says what is left to gain.
The bandwidth is measured on this device, in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge_tui.engine.models.architectures import flat_config, supports

if TYPE_CHECKING:
    from edge_tui.engine.models.base import ModelInfo

_GPU_BYTES = 8 << 30
CPU_BYTES = 256 << 20


def read_bandwidth(device: str) -> float:
    """Measures the bytes a second that a big reduction reads: the best of several kinds and rounds."""
    import torch

    size = CPU_BYTES
    if device.startswith("cuda"):
        size = min(_GPU_BYTES, torch.cuda.mem_get_info(device)[0] // 4)
    width = 8192
    rows = max(1, size // (2 * width))
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
    """Times a call in the fastest of several rounds, after one that does not count.

    On a GPU a round is many calls, because launching and waiting would pass for a lower bandwidth.
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
    """Waits until a GPU has finished its work; does nothing on a CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def weight_bytes_per_step(info: ModelInfo, config: Mapping[str, Any]) -> int:
    """Counts the bytes of weights that one step reads: all but the embedding, of which it reads a row.

    A head that is the embedding is read in full. On a CPU quantised models have a head of their own, and
    their embedding keeps 16 bits. Of a mixture's experts it reads those that one token chooses: the fewest,
    which all rows may share.
    """
    own = info.device == "cpu" and info.tier == "flat" and info.precision in ("int8", "4bit")
    width = 4 if info.dtype == "float32" and not own else 2
    read = info.weight_bytes - width * _idle_weights(config)
    text = config.get("text_config") or config
    if text.get("tie_word_embeddings", config.get("tie_word_embeddings")) and not own:
        return read
    return read - info.vocab * int(text["hidden_size"]) * width


def _idle_weights(config: Mapping[str, Any]) -> int:
    """Counts weights of experts and of inputs of layers that a token does not choose; 0 off the flat tier."""
    if supports(config):
        return 0
    flat = flat_config(config)
    inputs = flat.vocab * flat.layers * flat.features.per_layer_width
    return inputs if flat.features.mixture is None else flat.features.mixture.unread(flat.hidden)


def kv_bytes_per_step(info: ModelInfo, prompt: int, tokens: int, rows: int) -> float:
    """Counts the bytes of keys and values that a step reads on average: the prompt's once, and each row's."""
    return info.kv_bytes * (prompt + rows * tokens / 2)
