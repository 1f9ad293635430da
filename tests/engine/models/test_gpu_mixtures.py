"""Mixtures of experts on an NVIDIA GPU: what a CPU gives, in steps that never wait for the host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from tests.engine.models.references import checkpoint, deviation, flat, random_ids
from tests.engine.models.test_mixtures import MIXTURES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),  # minutes go into compiling kernels where none are cached
]
DEVICE = "cuda:0"


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("family", MIXTURES)
def test_a_gpu_gives_what_a_cpu_gives(family: str, rows: int, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "m", family)
    ids = random_ids(rows, 40)
    host, model = flat(path), flat(path, device=DEVICE)
    wanted = host.forward(host.open(rows, 64), ids).logits
    ctx, on_device = model.open(rows, 64), ids.to(DEVICE)
    got = [model.prefill(ctx, on_device[:, :30], chunk=13).logits]
    got += [model.forward(ctx, on_device[:, i : i + 1]).logits for i in range(30, 36)]
    got += [model.forward(ctx, on_device[:, 36:]).logits]
    assert deviation(torch.cat(got, 1).cpu(), wanted[:, 29:]) < 1e-3


@pytest.mark.parametrize("family", MIXTURES)
def test_steps_never_wait_and_can_be_captured(family: str, tmp_path: Path) -> None:
    """One graph reads other experts at each replay; plain operations take more rows than a fused step."""
    path = checkpoint(tmp_path / "m", family)
    model = flat(path, device=DEVICE)
    assert model.caps.capture, model.caps.reason
    for rows in (2,) if model.fused is not None else (2, 20):
        prompt = random_ids(rows, 10).to(DEVICE)

        def start(prompt: torch.Tensor = prompt, rows: int = rows) -> tuple[Any, torch.Tensor]:
            ctx = model.open(rows, 64)
            return ctx, model.prefill(ctx, prompt).logits.argmax(-1)

        ctx, ids = start()
        torch.cuda.set_sync_debug_mode("error")
        try:
            plain = []
            for _ in range(12):
                ids = model.forward(ctx, ids).logits.argmax(-1)
                plain.append(ids)
        finally:
            torch.cuda.set_sync_debug_mode("default")

        ctx, first = start()
        ids = first.clone()
        model.forward(ctx, ids)  # compiles
        ctx.truncate(torch.full((rows,), 10, device=DEVICE))
        graph, bound = torch.cuda.CUDAGraph(), ctx.bound
        with torch.inference_mode(), torch.cuda.graph(graph):
            ids.copy_(model.forward(ctx, ids).logits.argmax(-1))
        ctx.count_on_host(bound - ctx.bound)
        for wanted in plain:
            ctx.reserve(1)
            graph.replay()
            ctx.count_on_host(1)
            assert torch.equal(ids, wanted)


def test_the_same_step_gives_the_same_bits(tmp_path: Path) -> None:
    model = flat(checkpoint(tmp_path / "m", "qwen2_moe"), device=DEVICE)
    ids = random_ids(4, 12).to(DEVICE)

    def logits() -> torch.Tensor:
        ctx = model.open(4, 32)
        model.prefill(ctx, ids[:, :11])
        return model.forward(ctx, ids[:, 11:]).logits.clone()

    assert torch.equal(logits(), logits())
