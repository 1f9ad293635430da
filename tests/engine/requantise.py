"""Writes a GGUF file again with its matrices in another kind: a published model stands for every kind then.

The model is widened first, so that the largest blocks divide its rows. The `gguf` package quantises the kinds
without larger blocks. Those with K are quantised here, plainly: each group gets the scale that its range
needs, without the search for a better one that llama.cpp makes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from tests.engine.wide_model import Widening

if TYPE_CHECKING:
    from pathlib import Path

HEAD = Type.Q8_0
"""The kind of the embedding, which is the head too."""
SMALLEST = 2.0**-24
"""Divides groups of zeros: the smallest float16."""

Array = np.ndarray[Any, Any]


def requantise(source: Path, kind: Type, file: Path) -> Path:
    """Writes a Llama model, widened: its layers' matrices in `kind`, its embedding in Q8_0."""
    reader = gguf.GGUFReader(source)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    widening = Widening(fields)
    fields |= widening.fields
    out = gguf.GGUFWriter(file, "llama")
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            types = field.types
            out.add_key_value(name, fields[name], types[0], types[1] if len(types) > 1 else None)
    for tensor in reader.tensors:
        values = widening.widen(tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type))
        own = HEAD if tensor.name == "token_embd.weight" else kind if values.ndim == 2 else Type.F32
        out.add_tensor(tensor.name, quantise(values, own), raw_dtype=own)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def quantise(values: Array, kind: Type) -> Array:
    """Quantises rows: uint8 `[rows, bytes]`."""
    if kind not in (Type.Q4_K, Type.Q5_K, Type.Q6_K):
        return gguf.quantize(values, kind)
    blocks = values.reshape(-1, 256).astype(np.float32)
    packed = _q6_k(blocks) if kind == Type.Q6_K else _q45_k(blocks, 5 if kind == Type.Q5_K else 4)
    return packed.reshape(len(values), -1)


def _q6_k(blocks: Array) -> Array:
    groups = blocks.reshape(-1, 16, 16)
    scale = np.abs(groups).max(-1) / 31
    outer = np.maximum(scale.max(-1, keepdims=True) / 127, SMALLEST).astype(np.float16)
    inner = np.round(scale / outer.astype(np.float32)).clip(1, 127).astype(np.int8)
    each = (outer.astype(np.float32) * inner)[..., None]
    codes = (np.round(groups / each).clip(-32, 31) + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = codes & 15
    fours = np.concatenate([low[:, :, 0] | low[:, :, 2] << 4, low[:, :, 1] | low[:, :, 3] << 4], -1)
    twos = sum((codes[:, :, i] >> 4) << 2 * i for i in range(4))
    parts = fours.reshape(-1, 128), twos.reshape(-1, 64), inner.view(np.uint8), outer.view(np.uint8)
    return np.concatenate(parts, -1)


def _q45_k(blocks: Array, bits: int) -> Array:
    groups, most = blocks.reshape(-1, 8, 32), 2**bits - 1
    least = np.minimum(groups.min(-1), 0)
    factors = np.stack([(groups.max(-1).clip(0) - least) / most, -least])
    outer = np.maximum(factors.max(-1, keepdims=True) / 63, SMALLEST).astype(np.float16)
    inner = np.round(factors / outer.astype(np.float32)).clip(0, 63).astype(np.uint8)
    scale, minimum = (outer.astype(np.float32) * inner)[..., None]
    codes = np.round((groups + minimum) / np.maximum(scale, 1e-12)).clip(0, most).astype(np.uint8)
    (a, b), pairs = inner, (codes & 15).reshape(-1, 4, 2, 32)
    first, last = np.concatenate([a[:, :4], b[:, :4]], -1), np.concatenate([a[:, 4:], b[:, 4:]], -1)
    sixes = np.concatenate([first | (last >> 4) << 6, (a[:, 4:] & 15) | (b[:, 4:] & 15) << 4], -1)
    parts = [outer[0].view(np.uint8), outer[1].view(np.uint8), sixes]
    if bits == 5:
        parts.append(np.bitwise_or.reduce((codes >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1))
    parts.append((pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128))
    return np.concatenate(parts, -1)
