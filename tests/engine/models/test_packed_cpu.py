"""Models whose codes of four bits stay codes on a CPU, against their own dequantised weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from gguf import GGMLQuantizationType as Type

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models.loader import load
from edge_tui.engine.models.memory_estimate import estimate, resolve_precision
from edge_tui.engine.ops.cpu.project import can_int4
from edge_tui.engine.port import ModelSpec
from tests.engine.checkpoints.coded import Coding, make_coded
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.models.references import random_ids
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(not can_int4(), reason="no packed int4 here")
SHAPE: dict[str, Any] = {
    "vocab": 2304,
    "hidden": 256,
    "intermediate": 1024,
    "heads": 4,
    "kv_heads": 2,
    "layers": 2,
}


def k_m(name: str) -> Type:
    """A mixture as llama.cpp's Q4_K_M is one."""
    return Type.Q6_K if name.split(".")[-2] in ("attn_v", "ffn_down", "output") else Type.Q4_K


def with_wide_head(name: str) -> Type:
    """Q4_0 with the head that llama.cpp gives it where a row is no whole number of larger blocks."""
    return Type.Q8_0 if name.split(".")[-2] in ("token_embd", "output") else Type.Q4_0


def as_gguf(kinds: Callable[[str], Type], arch: str, folder: Path) -> str:
    return str(write_gguf(make_checkpoint(folder / "m", arch, **SHAPE), folder / "m.gguf", kinds))


MODELS: dict[str, tuple[Callable[[Path], str], str, list[str]]] = {
    "Q4_0": (lambda p: as_gguf(with_wide_head, "qwen2", p), "GGUF Q4_0, packed", ["int4"] * 4),
    "Q4_1": (lambda p: as_gguf(lambda _: Type.Q4_1, "llama", p), "GGUF Q4_1, packed", ["int4"] * 4),
    "Q4_K_M": (
        lambda p: as_gguf(k_m, "llama", p),
        "GGUF Q4_K, packed",
        ["plain", "int4", "int4", "plain"],
    ),
    "AWQ": (
        lambda p: str(make_coded(p, Coding(group=32), layers=1)[0]),
        "AWQ 4 bit g32, packed",
        ["int4"] * 4,
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_auto_keeps_codes_and_says_what_the_weights_say(case: str, tmp_path: Path) -> None:
    """As near to float32 as bfloat16 is, by the fused step too, in the memory that is forecast."""
    make, precision, kinds = MODELS[case]
    name = make(tmp_path)
    checkpoint, ids = open_checkpoint(name), random_ids(1, 150)
    assert resolve_precision(checkpoint, "auto", "cpu") == (precision, "float32")
    model: Any = load(ModelSpec(name, device="cpu", context=256)).model
    exact: Any = load(ModelSpec(name, "float32", "cpu", 256)).model
    short: Any = load(ModelSpec(name, "bfloat16", "cpu", 256)).model
    assert model.info.precision == precision
    assert [matrix.kind.split()[0] for matrix in model.weights.matrices[:4]] == kinds
    head = {"AWQ": "plain"}.get(case, "int8")  # which AWQ leaves in 16 bits, here too few to be packed
    assert model.weights.matrices[-1].kind.split()[0] == head
    assert model.fused is not None
    forecast = estimate(checkpoint, "auto", 256, 1, "cpu")
    assert forecast.weights == model.info.weight_bytes
    assert forecast.weights < exact.info.weight_bytes
    for pieces in ((150,), (19, 1, 1, 5)):
        runs = [(each, each.open(1, 256)) for each in (model, short, exact)]
        start = 0
        for count in pieces:
            piece = ids[:, start : start + count]
            got, rounded, wanted = (each.forward(ctx, piece).logits.float() for each, ctx in runs)
            assert float((got - wanted).norm() / (rounded - wanted).norm()) < 1.5
            start += count


def test_a_file_of_wider_codes_is_dequantised(tmp_path: Path) -> None:
    """No precision of the user's is guessed: int8 would round its numbers once more."""
    checkpoint = open_checkpoint(as_gguf(lambda _: Type.Q8_0, "llama", tmp_path))
    assert resolve_precision(checkpoint, "auto", "cpu") == ("float32", "float32")


@torch.inference_mode()
def test_what_cannot_multiply_codes_dequantises_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_tui.engine.ops.cpu import packed_sizes

    name = as_gguf(with_wide_head, "qwen2", tmp_path)
    monkeypatch.setattr(packed_sizes, "cpu_packs_int4", lambda: False)
    loaded = load(ModelSpec(name, device="cpu", context=64))
    assert loaded.model.info.precision == "float32"
