"""CUDA graphs on an NVIDIA GPU: what a capture leaves behind, also one that fails."""

from __future__ import annotations

import pytest
import torch

from edge_tui.engine.ops.cuda_capture import beside, capture, fork

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]
DEVICE = "cuda:0"


def test_a_capture_that_fails_leaves_torch_as_it_was() -> None:
    x = torch.ones(8, device=DEVICE)

    def wait() -> None:
        x.add_(1).sum().item()

    for _ in range(3):
        with pytest.raises(RuntimeError):
            capture(wait)
        assert torch.randn(8, device=DEVICE).isfinite().all()
    assert x.tolist() == [1.0] * 8
    graph = capture(lambda: x.add_(1))  # type: ignore[arg-type]
    graph.replay()
    assert x.tolist() == [2.0] * 8


def test_captures_share_the_workspaces_of_their_streams() -> None:
    a, b = torch.eye(256, device=DEVICE), torch.empty(2, 256, 256, device=DEVICE)
    torch.mm(a, a)  # what libraries make once cannot be captured

    def products() -> None:
        start = fork()
        torch.mm(a, a, out=b[0])
        with beside(start):
            torch.mm(a, a, out=b[1])

    held = []
    for _ in range(40):
        graph = capture(products)
        graph.replay()
        del graph
        torch.cuda.synchronize()
        held.append(torch.cuda.memory_allocated())
    assert torch.equal(b, a.expand_as(b))
    assert held[-1] == held[1]
