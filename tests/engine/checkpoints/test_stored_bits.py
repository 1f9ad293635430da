"""Checkpoints that bitsandbytes stored, read without accelerate, against the numbers that they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.checkpoints.weights import Weights
from edge_tui.engine.models.loader import LoadError, load
from edge_tui.engine.models.memory_estimate import estimate
from edge_tui.engine.port import ModelSpec
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import deviation, one_by_one, random_ids, reference
from tests.engine.random_checkpoints import (
    dequantise_bitsandbytes,
    make_checkpoint,
    save_tensors,
    save_tokenizer,
    store_bitsandbytes,
)

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "nf4": {"kind": "nf4"},
    "nf4 nested": {"kind": "nf4", "nested": True},
    "fp4": {"kind": "fp4"},
    "nf4 by 128": {"kind": "nf4", "blocksize": 128},
    "nf4 in part": {"kind": "nf4", "skip": ("layers.0.mlp", "h.0.mlp")},
    "int8": {"kind": "int8"},
}
SHAPE: dict[str, Any] = {"hidden": 128, "intermediate": 256, "heads": 4, "kv_heads": 2}


def spread(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got.float() - wanted).norm() / (wanted - wanted.mean(-1, keepdim=True)).norm())


@pytest.mark.parametrize(
    ("arch", "case"),
    [
        *(("llama", case) for case in ("nf4 nested", "fp4", "nf4 by 128")),
        ("gemma2", "nf4 in part"),
        ("gemma2", "int8"),
    ],
)
def test_what_was_stored_is_what_decodes(arch: str, case: str, tmp_path: Path) -> None:
    if arch == "gemma2":
        path = make_tiny(tmp_path / "m", arch, vocab_size=320, hidden_size=128, intermediate_size=256)
        save_tokenizer(path)
    else:
        path = make_checkpoint(tmp_path / "m", arch, **SHAPE)
    store_bitsandbytes(path, **KINDS[case])
    wanted = reference(dequantise_bitsandbytes(path, tmp_path / "plain"))
    loaded = load(ModelSpec(str(path), device="cpu"))
    model, ids = loaded.model, random_ids(2, 12)
    assert model.info.precision == ("int8" if case == "int8" else "4bit")
    with torch.inference_mode():
        true = wanted(ids).logits
    context = model.open(2, 16)
    got = [model.prefill(context, ids[:, :8]).logits]
    got.append(one_by_one(model, context, ids[:, 8:]))
    assert spread(torch.cat(got, 1), true[:, 7:]) < 0.15


@pytest.mark.parametrize("case", KINDS)
def test_every_number_is_bitsandbytes_own(case: str, tmp_path: Path) -> None:
    path = store_bitsandbytes(make_checkpoint(tmp_path / "m", "llama", **SHAPE), **KINDS[case])
    wanted = load_file(dequantise_bitsandbytes(path, tmp_path / "plain") / "model.safetensors")
    reader = open_checkpoint(str(path)).open_tensors()
    weights = Weights(reader, "cpu", torch.float32)
    assert set(reader.names()) == set(wanted)
    for name, tensor in wanted.items():
        assert deviation(weights.get(name, *tensor.shape), tensor) < 1e-6


def test_matrices_that_lie_the_other_way_round(tmp_path: Path) -> None:
    path = make_tiny(tmp_path / "m", "gpt2", vocab_size=320, n_embd=64, n_inner=128)
    save_tokenizer(path)
    tensors = load_file(path / "model.safetensors")
    turned = {n: t.t().contiguous() if ".c_" in n and t.dim() == 2 else t for n, t in tensors.items()}
    save_tensors(path, turned)
    store_bitsandbytes(path, "nf4")
    wanted, ids = reference(dequantise_bitsandbytes(path, tmp_path / "plain")), random_ids(1, 12)
    model = load(ModelSpec(str(path), device="cpu")).model
    with torch.inference_mode():
        true = wanted(ids).logits
    assert spread(model.forward(model.open(1, 16), ids).logits, true) < 0.15


@pytest.mark.parametrize("change", ["absmax", "quant_state"])
def test_a_layout_that_is_unknown_is_refused(change: str, tmp_path: Path) -> None:
    path = store_bitsandbytes(make_checkpoint(tmp_path / "m", "llama", **SHAPE), "nf4")
    tensors = load_file(path / "model.safetensors")
    name = next(name for name in tensors if change in name)
    tensors[name] = tensors[name][:3].clone()
    save_tensors(path, tensors)
    with pytest.raises(LoadError, match="by bitsandbytes in a layout that is unknown"):
        load(ModelSpec(str(path), device="cpu"))


@pytest.mark.parametrize("case", ["nf4", "fp4", "nf4 by 128", "int8"])
def test_no_less_is_estimated_than_it_takes(case: str, tmp_path: Path) -> None:
    path = store_bitsandbytes(make_checkpoint(tmp_path / "m", "llama", **SHAPE), **KINDS[case])
    needed = estimate(open_checkpoint(str(path)), "auto", 64, 1, "cpu")
    held = load(ModelSpec(str(path), device="cpu")).model.info.weight_bytes
    assert held <= needed.weights <= 1.7 * held
