"""Widens a Llama model of GGUF and keeps what it computes: blocks of 256 and groups of 128 divide its rows.

Heads of zeros join each group of heads, and columns of zeros the residual stream. The mean in a norm counts
those columns too, so its weights and its epsilon become smaller.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK = 256
"""Columns of the largest block of GGUF's kinds."""

Array = np.ndarray[Any, Any]


class Widening:
    """Widens the tensors of one model.

    Args:
        fields: The file's metadata.

    Attributes:
        fields: The metadata that change.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._width = fields["llama.embedding_length"]
        self._groups = fields["llama.attention.head_count_kv"]
        heads = fields["llama.attention.head_count"]
        self._head = self._width // heads
        wide = next(n for n in count(heads) if n % self._groups == 0 and n * self._head % BLOCK == 0)
        self._missing = (wide - heads) // self._groups
        self._share = heads / wide
        self.fields = {
            "llama.embedding_length": wide * self._head,
            "llama.attention.head_count": wide,
            "llama.attention.layer_norm_rms_epsilon": self._share
            * fields["llama.attention.layer_norm_rms_epsilon"],
        }

    def widen(self, name: str, values: Array) -> Array:
        """Widens a tensor `[out, in]`, or the weights of a norm `[width]`."""
        if values.ndim == 1:
            return self._pad(values, 0) * np.float32(self._share**0.5)
        part = name.split(".")[-2]
        if part == "attn_q":
            values = self._add_heads(values)
        elif part == "attn_output":
            values = self._add_heads(values.T).T
        return self._pad(values, 0 if part in ("attn_output", "ffn_down") else 1)

    def _pad(self, values: Array, axis: int) -> Array:
        """Adds zeros along the residual stream."""
        missing = self._missing * self._groups * self._head
        return np.pad(values, [(0, missing if at == axis else 0) for at in range(values.ndim)])

    def _add_heads(self, values: Array) -> Array:
        """Adds rows of zeros, those of whole heads, to the heads of each group."""
        grouped = values.reshape(self._groups, -1, values.shape[1])
        padded = np.pad(grouped, [(0, 0), (0, self._missing * self._head), (0, 0)])
        return padded.reshape(-1, values.shape[1])
