"""Counts the bytes of a model's weights from the headers of its files, exactly as the loaders store them."""

from __future__ import annotations

import re
from collections import defaultdict
from math import prod
from typing import TYPE_CHECKING

from edge_tui.engine.models.layer_shapes import unused_names
from edge_tui.engine.ops.cpu.packed_sizes import code_bytes, half_bytes, int8_head_bytes, is_worth_packing
from edge_tui.engine.ops.group_form import NF4_BLOCK, GroupForm, merged
from edge_tui.engine.ops.quantisation import FOUR_BIT, INT8, QUANTISATIONS, is_scale
from edge_tui.machine.devices import cpu_has_half

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_tui.engine.checkpoints.checkpoint import Checkpoint, StoredTensor
    from edge_tui.engine.models.architectures import FlatConfig
    from edge_tui.engine.ops.quantisation import Quantisation

WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number."""
BUFFERS = re.compile(r"rotary_emb\.inv_freq$|\.(attn|attention)\.(masked_)?bias$|\.masked_bias$")
"""Tensors that old checkpoints store and no loader reads."""
CODE_COPIES = 4
"""Bytes of each weight while codes are packed: as stored, a byte a code, those of all parts, and words."""
_ENDS = ("model.embed_tokens.weight", "lm_head.weight")


def count_weights(
    checkpoint: Checkpoint,
    flat: FlatConfig | None,
    precision: str,
    dtype: str,
    device: str,
    codes: bool = False,
) -> tuple[int, int, int]:
    """Counts the bytes of a model's weights; with `codes`, matrices that are stored as such stay so.

    Returns:
        Bytes in memory in the end; elements of the largest packed matrix of a layer; and bytes once the head
        is packed, which is done while nothing else is there.
    """
    layout = flat.layout.found_in(checkpoint.tensors) if flat else None
    end_names = layout.ends if layout else _ENDS
    ends = [checkpoint.tensors[name] for name in end_names if name in checkpoint.tensors]
    # Of two that are stored, nothing but their values says whether they are one.
    tied = len(ends) < 2 and bool(
        checkpoint.text_config.get("tie_word_embeddings", checkpoint.config.get("tie_word_embeddings"))
    )
    kind = None if checkpoint.quantization else QUANTISATIONS.get(precision)
    codes_on_cpu = codes and device == "cpu"
    wide = precision == "float32" or codes_on_cpu
    halve = wide and flat is not None and device == "cpu" and cpu_has_half()
    quantised_on_cpu = kind is not None and flat is not None and device == "cpu"
    int8_head = quantised_on_cpu or (codes_on_cpu and has_coded_head(checkpoint, flat))
    narrow_head = bool(ends) and (int8_head or (halve and _fits_half(ends[-1:], codes_on_cpu)))
    unused = unused_names(layout, flat.shapes) if layout and flat else ()
    # A model that sees or hears has other parts, too.
    read = (layout.prefixes[0], *layout.heads) if layout else ""
    total = first = 0
    if narrow_head:
        rows, *columns = ends[-1].shape
        total = 2 * ends[0].numel + (int8_head_bytes if int8_head else half_bytes)(rows, prod(columns))
        # Both as they are read, and the packed one; or, of a single one, its 16 bits.
        first = total - (0 if tied else 2 * ends[0].numel) + WIDTH[dtype] * sum(t.numel for t in ends)
    matrices: dict[str, list[StoredTensor]] = defaultdict(list)
    forms: dict[str, list[GroupForm | None]] = defaultdict(list)
    for name, tensor in checkpoint.tensors.items():
        if (
            not name.startswith(read)
            or BUFFERS.search(name)
            or name in unused
            or (narrow_head and name in end_names)
        ):
            continue
        matrix = layout.matrix_of(name) if layout else name if _is_matrix(name, tensor) else None
        if (kind or halve or codes) and matrix is not None:
            matrices[matrix].append(tensor)
            forms[matrix].append(checkpoint.form_of(name) if codes else None)
        elif is_scale(name):
            continue  # counted with their matrix
        elif codes and not codes_on_cpu and name == end_names[1] and (form := checkpoint.form_of(name)):
            total += form.nbytes(*tensor.shape)
            first = CODE_COPIES * tensor.numel
        elif tensor.dtype in ("U8", "I8"):
            total += _repacked_bytes(checkpoint, name, tensor, WIDTH[dtype], device)
        else:
            total += tensor.numel * WIDTH[dtype]
    inner = 0
    columns_first = 1 if layout and layout.transposed else 0
    for name, parts in matrices.items():
        elements, outputs = sum(t.numel for t in parts), sum(t.shape[columns_first] for t in parts)
        form = merged(forms[name])
        if codes_on_cpu:
            inner = max(inner, elements)
            total += code_bytes(form, outputs, elements // outputs)
            continue
        if (halve and not _fits_half(parts)) or (codes and form is None):
            total += elements * WIDTH[dtype]
            continue
        inner = max(inner, elements)
        each = kind if form is None else form
        total += _packed(each, outputs, elements // outputs, device)
    total += flat.norm_copies * WIDTH[dtype] if flat else 0
    return total, inner, first


def has_coded_head(checkpoint: Checkpoint, flat: FlatConfig | None) -> bool:
    """Tells whether the head, or the embedding that stands for it, is stored as codes in groups.

    A CPU that keeps codes packs such a head as int8: it has no product with codes of more than four
    bits, and in 16 bits the head would take half of a small model's step.
    """
    names = flat.layout.found_in(checkpoint.tensors).ends if flat else _ENDS
    stored = [name for name in names if name in checkpoint.tensors]
    return bool(stored) and checkpoint.form_of(stored[-1]) is not None


def _fits_half(parts: Sequence[StoredTensor], rounds: bool = False) -> bool:
    """Tells whether a CPU that computes in float32 keeps the matrix of these parts as float16."""
    exact = rounds or all(part.dtype in ("BF16", "F16") for part in parts)
    return exact and is_worth_packing(sum(part.numel for part in parts))


def _packed(kind: Quantisation | GroupForm | None, rows: int, columns: int, device: str) -> int:
    """Counts the bytes of a matrix that is packed: quantised, as codes in groups, or as float16."""
    if isinstance(kind, GroupForm):
        return kind.nbytes(rows, columns)
    return half_bytes(rows, columns) if kind is None else kind.nbytes(rows, columns, device)


def _repacked_bytes(checkpoint: Checkpoint, name: str, tensor: StoredTensor, number: int, device: str) -> int:
    """Counts the bytes of a matrix that was stored quantised: packed again where no number changes."""
    if tensor.dtype == "I8":
        return INT8.nbytes(tensor.shape[0], tensor.numel // tensor.shape[0], device)
    scales = checkpoint.tensors.get(name + ".absmax")
    elements = 2 * tensor.numel
    if scales is None or elements != NF4_BLOCK * scales.numel:
        return elements * number
    return FOUR_BIT.nbytes(1, elements, "cuda")


def _is_matrix(name: str, tensor: StoredTensor) -> bool:
    """Tells whether a stored tensor is a linear layer's weight, which quantisation applies to."""
    if len(tensor.shape) != 2 or not name.endswith(".weight"):
        return False
    return not re.search(r"embed|lm_head|\bwte\b|\bwpe\b|norm|ln_|\bscore\b", name)
