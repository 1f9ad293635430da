"""What goes through buffers arrives as it was."""

from __future__ import annotations

import pytest
import torch

from edge_tui.engine.checkpoints.staging import Staging

PIECE = 1024
GPU = pytest.param("cuda:0", marks=pytest.mark.gpu)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.uint8])
def test_tensors_of_every_size_arrive(device: str, dtype: torch.dtype) -> None:
    staging = Staging(PIECE)
    rng = torch.Generator().manual_seed(0)
    sources = [
        torch.randint(0, 255, (rows, 64), generator=rng).to(dtype)
        for rows in (PIECE // 64, 3, 5 * PIECE // 64 + 1, 7 * PIECE // 64)
    ]
    whole = torch.zeros(sum(map(len, sources)), 64, dtype=dtype, device=device)
    at = 0
    for source in sources:
        target = whole[at : at + len(source)]
        assert staging.fits(target, source) == (source.nbytes >= PIECE // 4)
        staging.copy(target, source)
        at += len(source)
    assert torch.equal(whole.cpu(), torch.cat(sources))


def test_what_has_to_be_converted_or_moved_apart_goes_another_way() -> None:
    staging, source = Staging(PIECE), torch.zeros(64, 64)
    assert staging.fits(torch.zeros(64, 64), source)
    assert not staging.fits(torch.zeros(64, 64, dtype=torch.bfloat16), source)
    assert not staging.fits(torch.zeros(64, 64), source.t())
    assert not staging.fits(torch.zeros(63), source[0, :63])
