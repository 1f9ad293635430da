"""Widening codes to 16 bits: every weight is the file's own, rounded once."""

from __future__ import annotations

import pytest
import torch

from edge_tui.engine.ops.code_groups import pack
from tests.engine.ops.random_groups import KINDS, random_groups

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
widen_groups = pytest.importorskip("edge_tui.engine.ops.triton.widen_groups")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_weights_are_those_that_the_codes_stand_for(kind: str, dtype: torch.dtype) -> None:
    form = KINDS[kind]
    for rows, columns in ((1, 256), (67, 768 if form.outer else 5 * form.group)):
        groups = random_groups(form, rows, columns, seed=rows, device=DEVICE)
        assert torch.equal(widen_groups.widen(pack(groups), dtype), groups.dequantise().to(dtype))
