"""Whole models against the logits of llama.cpp, which `python -m tests.engine.llama_cpp build cpu` builds."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Type

from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec
from tests.engine.checkpoints.gguf.files import PACKED, write_gguf
from tests.engine.llama_cpp import logits_program
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import random_ids
from tests.engine.random_checkpoints import TOKENS, make_checkpoint, save_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(
        not logits_program().exists(), reason="llama.cpp is not built; see tests.engine.llama_cpp"
    ),
]


def stretched(**scaling: Any) -> dict[str, Any]:
    """Returns the metadata of a rotary embedding that is stretched by 4."""
    return {"fields": {f"qwen2.rope.scaling.{key}": each for key, each in scaling.items()} | {FACTOR: 4.0}}


FACTOR = "qwen2.rope.scaling.factor"
WIDE = {"vocab": TOKENS, "hidden": 256, "intermediate": 256, "heads": 4, "kv_heads": 2}
FILES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": ("llama", {}, {}),
    "llama, tied": ("llama", {"tie": True}, {}),
    "llama, biased": ("llama", {"extra": {"attention_bias": True}}, {}),
    "llama 3": ("llama", {}, {"rope_freqs": [1.0] * 16 + [4.0] * 8 + [8.0] * 8}),
    "qwen2": ("qwen2", {}, {}),
    "qwen3": ("qwen3", {"head_dim": 64}, {}),
    "phi3": ("phi3", {}, {}),
    "linear": ("qwen2", {}, stretched(type="linear")),
    "linear, unnamed": ("qwen2", {}, stretched()),
    "yarn": ("qwen2", {}, stretched(type="yarn", original_context_length=16)),
}
"""Family, what its checkpoint has, and what its file has beside it."""


def logits(file: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns our logits of a text `[T, V]`, and llama.cpp's."""
    ids = random_ids(1, 48, vocab=TOKENS)
    command = [str(logits_program()), str(file), *map(str, ids[0].tolist())]
    done = subprocess.run(command, capture_output=True, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    theirs = torch.tensor(np.frombuffer(done.stdout, np.float32).reshape(48, -1))
    model = load(ModelSpec(str(file), "float32", "cpu", 64)).model
    ours = model.forward(model.open(1, 64), ids).logits[0]
    assert ours.shape == theirs.shape
    return ours, theirs


@pytest.mark.parametrize("case", FILES)
@torch.inference_mode()
def test_a_family_has_the_logits_of_llama_cpp(case: str, tmp_path: Path) -> None:
    arch, config, stored = FILES[case]
    folder = make_checkpoint(tmp_path / "m", arch, **WIDE, **config)
    ours, theirs = (
        each.log_softmax(-1) for each in logits(write_gguf(folder, tmp_path / "m.gguf", **stored))
    )
    assert float(theirs.std()) > 1
    assert float((ours - theirs).abs().max()) < 1e-3


@pytest.mark.parametrize("kind", ["gemma2", "gemma3_text"])
@torch.inference_mode()
def test_gemma_has_the_logits_of_llama_cpp(kind: str, tmp_path: Path) -> None:
    """But for GELU, which llama.cpp looks up in a table of 16 bits; a window off by one is off by 4 to 6."""
    sizes = {"vocab_size": TOKENS, "hidden_size": 256, "intermediate_size": 256, "head_dim": 64}
    folder = make_tiny(tmp_path / "m", kind, **sizes, num_hidden_layers=7, rope_theta=10_000.0)
    save_tokenizer(folder)
    fields = {f"{kind.removesuffix('_text')}.attention.sliding_window": 9}
    ours, theirs = (
        each.log_softmax(-1) for each in logits(write_gguf(folder, tmp_path / "m.gguf", fields=fields))
    )
    assert float(theirs.std()) > 1
    assert float((ours - theirs).abs().max()) < 3e-2


@pytest.mark.parametrize("kind", [Type.F16, Type.BF16, *PACKED], ids=lambda kind: kind.name)
@torch.inference_mode()
def test_a_kind_has_the_logits_of_llama_cpp(kind: Type, tmp_path: Path) -> None:
    """As far as it rounds: activations to 8 bits for packed kinds, and to 16 for others."""
    folder = make_checkpoint(tmp_path / "m", "llama", **WIDE)
    ours, theirs = logits(write_gguf(folder, tmp_path / "m.gguf", lambda _: kind))
    assert float((ours - theirs).norm() / theirs.norm()) < (0.2 if kind in PACKED else 0.05)
