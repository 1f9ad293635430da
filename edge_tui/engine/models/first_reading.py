"""Reads zeros through a model's first layer while the others are loaded, as a prompt is read.

CUDA loads a kernel of a library when it is launched for the first time, and cuBLAS makes its tables and
chooses a kernel for each shape then: 0.2 s of a process's first prompt. Beside reading the other layers they
cost nothing: driver and libraries let the interpreter go meanwhile. `edge-tui bench figures --only start`
shows it ("prompt").
"""

from __future__ import annotations

from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from edge_tui.engine.models.attention import attend
from edge_tui.engine.models.feed_forward import FeedForward
from edge_tui.engine.models.rope import rotate
from edge_tui.engine.ops.current_device import computing

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.models.layers import Layer

_COUNT = 32
"""Positions of a short prompt."""
_expected: list[bool] = []
"""Holds an item while the first load of a process goes on, until a thread has begun."""


def expect() -> None:
    """Lets the next load start a thread; called before the first load of a process.

    A thread that multiplies has memory of cuBLAS's for itself, which another thread takes over when it ends.
    A later load would find the owner thread's in use and take more, for good.
    """
    _expected.append(True)


def begin(layer: Callable[[], Layer], config: FlatConfig, device: str, dtype: torch.dtype) -> Thread | None:
    """Starts a thread that reads zeros through a layer; whatever fails there is left to the first prompt.

    Args:
        layer: Returns the layer; called on this thread, as it may read a tensor.
        config: Of the model.
        device: It lies there.
        dtype: The compute dtype.

    Returns:
        The thread; None on a CPU, and for all loads but the one that is expected.
    """
    if not device.startswith("cuda") or not _expected:
        return None
    _expected.clear()
    first = layer()

    def work() -> None:
        with suppress(Exception):
            read_zeros(first, config, device, dtype)

    thread = Thread(target=work, name="first-reading", daemon=True)
    thread.start()
    return thread


def read_zeros(layer: Layer, config: FlatConfig, device: str, dtype: torch.dtype) -> None:
    """Multiplies, rotates, attends and norms as `FlatModel` does, for a chunk of some positions."""
    h, shape = config.heads, config.shapes[0]
    rope = (config.features.local_rope if config.windows[0] else None) or config.rope
    with computing(device):
        x = torch.zeros(_COUNT, config.hidden, dtype=dtype, device=device)
        if config.features.norm != "layer":
            x = F.rms_norm(x, x.shape[1:], layer.norms[0].weight, config.eps)
        heads = layer.qkv(x).view(1, _COUNT, -1, shape.head_dim)
        angles = x.new_zeros(_COUNT, 1, rope.dim)
        rotate(heads[:, :, : h + shape.kv_heads], angles, angles)
        keys, values = heads.transpose(1, 2)[:, h:].chunk(2, 1)
        y = layer.out(attend(heads[:, :, :h], keys, values, None).reshape(_COUNT, -1))
        x = y.add_(x)
        if layer.mlp is not None and layer.experts is None:
            FeedForward(config.features, kernels=False)(layer, x)
