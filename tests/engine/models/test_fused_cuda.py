"""The GPU's fused step, its kernels interpreted on the CPU: what it gives beside logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui.decoders.base import Needs
from edge_tui.engine.models import fused_cuda
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import (
    FAMILIES,
    TOLERANCE,
    deviation,
    flat,
    random_ids,
    reference,
)
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge_tui.engine.models.flat import FlatModel

    Fuse = Callable[[Path], FlatModel]

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
pytestmark = [
    pytest.mark.proof,  # interpreted kernels take seconds
    pytest.mark.skipif(not launch.INTERPRETED, reason="test_gpu.py runs it compiled"),
]


@pytest.fixture
def fuse_interpreted(monkeypatch: pytest.MonkeyPatch) -> Fuse:
    """Opens a checkpoint in float32 with the kernels of a GPU."""
    device = SimpleNamespace(multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(fused_cuda, "fork", lambda: None)  # nothing is captured
    monkeypatch.setattr(fused_cuda, "available", lambda: None)

    def opened(path: Path) -> FlatModel:
        model = flat(path)
        assert model.weights is not None
        fused = fused_cuda.fuse(model.config, model.weights)
        assert not isinstance(fused, str), fused
        model.fused = fused
        return model

    return opened


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, fuse_interpreted: Fuse
) -> tuple[FlatModel, FlatModel]:
    """Two models of one checkpoint, plain and with the kernels."""
    if request.param == "qwen2":
        sizes = {"vocab": 32, "hidden": 32, "heads": 2, "kv_heads": 1, "intermediate": 32}
        path = make_checkpoint(tmp_path / "m", **sizes)
    else:
        path = make_tiny(tmp_path / "m", request.param, **{"vocab_size": 32} | FAMILIES[request.param])
    plain = flat(path)
    plain.fused = None
    return plain, fuse_interpreted(path)


@pytest.mark.parametrize(
    ("pair", "needs"),
    [
        pytest.param("qwen2", Needs(early=(1, 0)), id="early"),
        pytest.param(
            "qwen2", Needs(hidden=(1,), early=(0, 1), early_norm=False), id="shared layer, bare head"
        ),
        pytest.param("qwen2", Needs(hidden=(2, 0, 1), early=(1,), past=True), id="all"),
        pytest.param("qwen2_moe", Needs(), id="a mixture with a shared expert, and a dense layer"),
        pytest.param("qwen3_moe", Needs(hidden=(1,)), id="mixtures"),
        pytest.param("gpt_oss", Needs(), id="sinks, biases and a clamp"),
        pytest.param("olmoe", Needs(), id="norms over all heads in a mixture"),
        pytest.param("gemma2", Needs(hidden=(0, 2), early=(1, 0), past=True), id="norms on both sides, caps"),
        pytest.param("olmo2", Needs(hidden=(1,), early=(1, 0)), id="norms after"),
    ],
    indirect=["pair"],
)
def test_it_gives_what_plain_operations_give(pair: tuple[FlatModel, FlatModel], needs: Needs) -> None:
    ids = random_ids(2, 12, vocab=32)
    outputs = []
    for model in pair:
        ctx = model.open(2, 32, past=needs.past)
        ctx.needs = needs
        model.prefill(ctx, ids[:, :9])
        steps = []
        for piece in (ids[:, 9:10], ids[:, 10:12]):
            assert model.fused is None or model.fused.fits(ctx, piece.shape[1])
            tensors = model.forward(ctx, piece).tensors()
            if "past" in tensors:
                tensors["past"] = tensors["past"][:, : ctx.bound]
            steps.append({name: tensor.clone() for name, tensor in tensors.items()})
        outputs.append(steps)
    for plain, fused in zip(*outputs, strict=True):
        assert plain.keys() == fused.keys()
        for name, tensor in plain.items():
            assert deviation(fused[name], tensor) < 1e-5, name


FAMILIES_WITH_MORE = (
    "gemma",
    "gemma2",
    "gemma3_text",
    "glm4",
    "granite",
    "granitemoe",
    "olmo2",
    "olmo3",
    "smollm3",
)


@pytest.mark.parametrize("family", FAMILIES_WITH_MORE)
def test_it_gives_what_transformers_gives(family: str, tmp_path: Path, fuse_interpreted: Fuse) -> None:
    path = make_tiny(tmp_path / "m", family, **{"vocab_size": 32, "rope_theta": 100.0} | FAMILIES[family])
    ids = random_ids(2, 13, vocab=32)
    with torch.inference_mode():
        wanted = reference(path)(ids).logits[:, 9:]
    model = fuse_interpreted(path)
    ctx = model.open(2, 32)
    model.prefill(ctx, ids[:, :9])
    logits = [model.forward(ctx, piece).logits for piece in (ids[:, 9:10], ids[:, 10:12])]
    logits.append(model.forward(ctx, ids[:, 12:]).logits)
    assert deviation(torch.cat(logits, 1), wanted) < TOLERANCE
