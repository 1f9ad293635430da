"""Norms of transformers' modules by one kernel: the same numbers, and nothing else is taken for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from edge_tui.engine.models.fused_norms import fuse_norms
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import deviation, random_ids, reference

if TYPE_CHECKING:
    from pathlib import Path


class Norm(nn.Module):
    """A norm over the root mean square, with one thing changed."""

    def __init__(self, change: str = "") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2.0, 16))
        self.other, self.eps = 1e-3, 1e-6
        self.change = change

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        if self.change == "mean":
            wide = wide - wide.mean(-1, keepdim=True)
        size = wide.square().mean(-1, keepdim=True)
        scale = self.weight + 1 if self.change == "offset" else self.weight
        normed = wide * torch.rsqrt(size + (1e-5 if self.change == "epsilon" else self.eps))
        return scale * (normed.tanh() if self.change == "function" else normed).to(x.dtype)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_is_found_with_its_epsilon(dtype: torch.dtype) -> None:
    norm = Norm().to(dtype)
    rows = torch.randn(5, 16).to(dtype) * 1e-3
    wanted = norm(rows)
    assert fuse_norms(nn.Sequential(norm)) == 1
    assert torch.equal(norm(rows), F.rms_norm(rows, (16,), norm.weight, 1e-6))
    assert deviation(norm(rows).float(), wanted.float()) < 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("change", ["mean", "offset", "epsilon", "function"])
def test_what_gives_other_numbers_is_left_alone(change: str) -> None:
    norm = Norm(change)
    rows = torch.randn(5, 16)
    wanted = norm(rows)
    assert fuse_norms(nn.Sequential(norm, nn.LayerNorm(16), nn.Linear(4, 4))) == 0
    assert torch.equal(norm(rows), wanted)


def test_a_model_gives_the_same_logits(tmp_path: Path) -> None:
    module: Any = reference(make_tiny(tmp_path / "hunyuan", "hunyuan_v1_dense"))
    ids = random_ids(2, 20, vocab=96)
    with torch.inference_mode():
        wanted = module(input_ids=ids, use_cache=False).logits
        assert fuse_norms(module) == 9  # four of each of two layers, and the last
        assert deviation(module(input_ids=ids, use_cache=False).logits, wanted) < 1e-5
