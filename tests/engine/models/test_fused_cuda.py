"""The GPU's fused step, its kernels interpreted on the CPU: what it gives beside logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from edge_tui.decoders.base import Needs
from edge_tui.engine.models import fused_cuda
from edge_tui.engine.ops.packed import PackedMatrix
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import FAMILIES, deviation, flat, random_ids
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from edge_tui.engine.models.flat import FlatModel

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
pytestmark = [
    pytest.mark.proof,  # interpreted kernels take seconds
    pytest.mark.skipif(not launch.INTERPRETED, reason="test_gpu.py runs it compiled"),
]


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[FlatModel, FlatModel]:
    """Two models of one checkpoint, plain and with the kernels."""
    device = SimpleNamespace(multi_processor_count=4)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: device)
    monkeypatch.setattr(fused_cuda, "fork", lambda: None)  # nothing is captured
    if request.param == "qwen2":
        sizes = {"vocab": 32, "hidden": 32, "heads": 2, "kv_heads": 1, "intermediate": 32}
        path = make_checkpoint(tmp_path / "m", **sizes)
    else:
        path = make_tiny(tmp_path / "m", request.param, **{"vocab_size": 32} | FAMILIES[request.param])
    plain, fused = flat(path), flat(path)
    plain.fused = None
    assert fused.weights is not None
    matrices = []
    for matrix in fused.weights.matrices:
        rows, columns = matrix.weight.shape
        matrices.append(PackedMatrix("plain", matrix.weight, None, matrix.bias, rows, columns))
    fused.fused = fused_cuda.FusedStep(fused.config, fused.weights, matrices)
    return plain, fused


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
