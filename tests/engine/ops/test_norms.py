"""The kernels of norms between products against torch's: interpreted, compiled where there is a GPU."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
norms = pytest.importorskip("edge_tui.engine.ops.triton.norms")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
WIDTHS = (8, 300, 1152, 2304)
BOUND = {torch.float32: 1e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(*shape, generator=generator).to(DEVICE, dtype)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", BOUND)
def test_a_norm_is_added_to_the_stream(width: int, dtype: torch.dtype) -> None:
    x, stream = random(3, width, dtype=dtype), random(3, width + 1, dtype=dtype)[:, 1:].contiguous()
    gain = random(width, dtype=dtype)
    wanted = stream + F.rms_norm(x.float(), (width,), gain.float(), 1e-2)
    out = torch.full_like(stream, torch.nan)
    norms.add_normed(x, gain, 1e-2, stream, out)
    assert torch.allclose(out.float(), wanted, rtol=BOUND[dtype], atol=BOUND[dtype])
    norms.add_normed(x, gain, 1e-2, stream, stream)
    assert torch.equal(stream, out)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", BOUND)
def test_tokens_have_a_norm_before_several_meet_codes(width: int, dtype: torch.dtype) -> None:
    x, gain = random(3, width, dtype=dtype), random(width, dtype=dtype)
    out = norms.norm_tokens(x, gain, 1e-2)
    wanted = F.rms_norm(x.float(), (width,), gain.float(), 1e-2)
    assert out.dtype == dtype
    assert torch.allclose(out.float(), wanted, rtol=BOUND[dtype], atol=BOUND[dtype])


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(3, 1, 8), (2, 2, 24), (16, 16, 128)])
def test_queries_and_keys_have_norms_of_their_own(heads: int, kv_heads: int, head_dim: int) -> None:
    qkv = random(2, (heads + 2 * kv_heads) * head_dim)
    gain = random(heads + kv_heads, head_dim)
    q, k, v = qkv.split([heads * head_dim, kv_heads * head_dim, kv_heads * head_dim], 1)
    parts = [F.rms_norm(part, part.shape[1:], None, 1e-2) for part in (q, k)]
    wanted = torch.cat((torch.cat(parts, 1) * gain.flatten(), v), 1)
    norms.norm_heads(qkv, gain, 1e-2, kv_heads)
    assert torch.allclose(qkv, wanted, rtol=1e-5, atol=1e-5)
