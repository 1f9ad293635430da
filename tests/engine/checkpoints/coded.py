"""Writes checkpoints as AWQ, GPTQ and AutoRound store them, with random codes, and their weights beside them.

The weights come from a loop over single elements, written down from the formats' definitions.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file

from tests.engine.random_checkpoints import make_checkpoint, save_tensors

if TYPE_CHECKING:
    from pathlib import Path

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Output whose code lies at bits 4k of an int32, for k = 0, 1 …"""


@dataclass(frozen=True)
class Coding:
    """Chooses a format.

    Attributes:
        method: "awq" or "gptq".
        bits: Of a code.
        group: Inputs that share a scale; -1 means all.
        version: Of GPTQ's files: "gptq" or "gptq_v2".
        act_order: Whether inputs belong to groups in a random order.
        stores_groups: Whether GPTQ's `g_idx` is stored.
    """

    method: str = "awq"
    bits: int = 4
    group: int = 32
    version: str = "gptq"
    act_order: bool = False
    stores_groups: bool = True

    @property
    def config(self) -> dict[str, Any]:
        """As config.json has it."""
        common = {"quant_method": self.method, "bits": self.bits, "group_size": self.group}
        if self.method == "awq":
            return common | {"version": "gemm", "zero_point": True, "modules_to_not_convert": None}
        return common | {"checkpoint_format": self.version, "desc_act": self.act_order, "sym": False}


Drawn = tuple[dict[str, torch.Tensor], torch.Tensor]


@cache
def draw(coding: Coding, rows: int, columns: int, seed: int) -> Drawn:
    """Draws a matrix, the same for the same arguments.

    Returns:
        Its stored tensors by their last names; and its weights, float32 `[rows, columns]`.
    """
    rng = random.Random(seed)
    top, per = 2**coding.bits, 32 // coding.bits
    size = columns if coding.group == -1 else coding.group
    groups = -(-columns // size)
    group_of = [column // size for column in range(columns)]
    if coding.act_order:
        rng.shuffle(group_of)
    codes = [[rng.randrange(top) for _ in range(columns)] for _ in range(rows)]
    plus_one = coding.method == "gptq" and coding.version == "gptq"
    stored_zeros = [[rng.randrange(top) for _ in range(rows)] for _ in range(groups)]
    step = 16 / top  # numbers of the same size whatever the bits: larger ones overflow float16 in a model
    scales = [[rng.uniform(0.005, 0.05) * step for _ in range(rows)] for _ in range(groups)]
    scales = np.array(scales, np.float16)
    weights = np.zeros((rows, columns), np.float32)
    for row in range(rows):
        for column in range(columns):
            group = group_of[column]
            zero = stored_zeros[group][row] + (1 if plus_one else 0)
            weights[row, column] = np.float32(scales[group][row]) * np.float32(codes[row][column] - zero)
    zeros = np.zeros((groups, rows // per), np.uint32)
    for group in range(groups):
        for row in range(rows):
            place = AWQ_ORDER.index(row % 8) if coding.method == "awq" else row % per
            zeros[group, row // per] |= np.uint32(stored_zeros[group][row] << coding.bits * place)
    along = (columns, rows // per) if coding.method == "awq" else (columns // per, rows)
    packed = np.zeros(along, np.uint32)
    for row in range(rows):
        for column in range(columns):
            if coding.method == "awq":
                shift, where = 4 * AWQ_ORDER.index(row % 8), (column, row // 8)
            else:
                shift, where = coding.bits * (column % per), (column // per, row)
            packed[where] |= np.uint32(codes[row][column] << shift)
    tensors = {
        "qweight": torch.from_numpy(packed.view(np.int32)),
        "qzeros": torch.from_numpy(zeros.view(np.int32)),
        "scales": torch.from_numpy(scales),
    }
    if coding.method == "gptq" and coding.stores_groups:
        tensors["g_idx"] = torch.tensor(group_of, dtype=torch.int32)
    return tensors, torch.from_numpy(weights)


def make_coded(
    folder: Path, coding: Coding, arch: str = "qwen2", *, zero_biases: bool = False, **shape: Any
) -> tuple[Path, Path]:
    """Writes a checkpoint whose layers' matrices are stored as codes, and its twin of plain float32 weights.

    Args:
        folder: Receives both.
        coding: The format.
        arch: As `make_checkpoint`.
        zero_biases: Whether each matrix has a bias of zeros beside it, as files of GPTQ do.
        **shape: As `make_checkpoint`.

    Returns:
        The folders of the stored checkpoint and of the twin.
    """
    shape = {"hidden": 64, "intermediate": 96, "heads": 4, "kv_heads": 2} | shape
    stored = make_checkpoint(folder / "stored", arch, dtype=torch.float16, **shape)
    twin = make_checkpoint(folder / "twin", arch, dtype=torch.float16, **shape)
    out: dict[str, torch.Tensor] = {}
    plain: dict[str, torch.Tensor] = {}
    for seed, (name, tensor) in enumerate(load_file(stored / "model.safetensors").items()):
        if tensor.dim() != 2 or ".layers." not in name:
            out[name] = plain[name] = tensor
            continue
        base = name.removesuffix(".weight")
        parts, plain[name] = draw(coding, *tensor.shape, seed=seed)
        out |= {f"{base}.{part}": value for part, value in parts.items()}
        if zero_biases:
            out.setdefault(f"{base}.bias", torch.zeros(len(tensor), dtype=torch.float16))
    save_tensors(stored, out)
    save_tensors(twin, {name: tensor.float() for name, tensor in plain.items()})
    declare(stored, coding.config)
    return stored, twin


def store_coded(folder: Path, coding: Coding) -> Path:
    """Rounds the matrices of a checkpoint's layers in place to codes of 4 bits, as AWQ or GPTQ store them.

    Each group gets the scale and the zero point that its range needs: none of the two methods' search.
    """
    out: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        if tensor.dim() != 2 or ".layers." not in name:
            out[name] = tensor
            continue
        base = name.removesuffix(".weight")
        out |= {f"{base}.{part}": value for part, value in _round(tensor.float(), coding).items()}
    save_tensors(folder, out)
    declare(folder, coding.config)
    return folder


def _round(weight: torch.Tensor, coding: Coding) -> dict[str, torch.Tensor]:
    groups = weight.unflatten(1, (-1, coding.group))
    least, most = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scales = ((most - least) / 15).clamp(min=1e-4).half()
    plus_one = int(coding.method == "gptq" and coding.version == "gptq")
    zeros = (-least / scales).round().clamp(plus_one, 15)
    codes = (groups / scales[..., None] + zeros[..., None]).round().clamp(0, 15).flatten(1)
    order = list(AWQ_ORDER) if coding.method == "awq" else list(range(8))
    words = _words(codes.t(), order) if coding.method == "awq" else _words(codes, order).t()
    zero_words = _words(zeros.t() - plus_one, order)
    return {"qweight": words.contiguous(), "qzeros": zero_words, "scales": scales.t().contiguous()}


def _words(codes: torch.Tensor, order: list[int]) -> torch.Tensor:
    """Packs codes `[n, m]` of 4 bits along the second dimension: int32 `[n, m / 8]`."""
    eights = codes.long().unflatten(1, (-1, 8))[..., order]
    return (eights << torch.arange(0, 32, 4)).sum(-1).to(torch.uint32).view(torch.int32)


def declare(folder: Path, quantisation: dict[str, Any]) -> None:
    """Writes the quantisation into a config.json."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(config | {"quantization_config": quantisation}), encoding="utf-8")


CODINGS = {
    "awq": Coding(),
    "awq g64": Coding(group=64),
    "awq whole": Coding(group=-1),
    "gptq": Coding("gptq"),
    "gptq g64": Coding("gptq", group=64),
    "gptq whole": Coding("gptq", group=-1),
    "gptq without groups": Coding("gptq", stores_groups=False),
    "gptq v2": Coding("gptq", version="gptq_v2"),
    "gptq act-order": Coding("gptq", act_order=True),
    "gptq v2 act-order": Coding("gptq", version="gptq_v2", act_order=True),
    "gptq 8 bit": Coding("gptq", bits=8),
    "gptq v2 8 bit act-order": Coding("gptq", bits=8, version="gptq_v2", act_order=True),
}
CODINGS |= {f"{name} g128": replace(CODINGS[name], group=128) for name in ("awq", "gptq", "gptq act-order")}
