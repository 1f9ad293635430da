"""Matrices stored narrow: close to the wide ones, and really smaller."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.models import loading
from edge_tui.engine.models.linear import LlmInt8, Nf4, Plain, PrecisionError, RowInt8, kind_of
from tests.engine.checkpoints import make_checkpoint
from tests.engine.models.references import deviation, flat, random_ids

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_row_int8(bias: bool, rows: int, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=rng)
    weight[3] *= 100  # a loud row must not cost the others their resolution
    weight[4] = 0
    b = torch.randn(96, generator=rng).to(dtype) if bias else None
    x = torch.randn(rows, 64, generator=rng).to(dtype)
    narrow, wide = RowInt8(weight, b), Plain(weight.to(dtype), b)
    got, wanted = narrow(x), wide(x)
    assert got.dtype == dtype
    others = [i for i in range(96) if i != 3]
    assert deviation(got[:, others], wanted[:, others]) < 0.03
    assert deviation(got[:, 3], wanted[:, 3]) < 0.03
    assert narrow.parameters == wide.parameters == 96 * 64 + (96 if bias else 0)
    assert narrow.nbytes == 96 * 64 + 2 * 96 + (96 * dtype.itemsize if bias else 0)


def test_few_and_many_rows_agree() -> None:
    """Both of RowInt8's ways multiply by the same weights."""
    rng = torch.Generator().manual_seed(1)
    narrow = RowInt8(torch.randn(64, 64, generator=rng))
    x = torch.randn(32, 64, generator=rng)
    single = torch.cat([narrow(row[None]) for row in x])
    assert deviation(narrow(x), single) < 0.01


def test_kinds() -> None:
    assert kind_of("float32", "cpu") is Plain
    assert kind_of("int8", "cpu") is RowInt8
    assert kind_of("int8", "cuda:0") is LlmInt8
    assert kind_of("4bit", "cuda:1") is Nf4
    with pytest.raises(PrecisionError, match="not mps: choose bfloat16"):
        kind_of("4bit", "mps")


def rounded_nf4(weight: Tensor, bias: Tensor | None) -> Plain:
    """Weights as NF4 would give them back."""
    from bitsandbytes import functional as bnb

    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    return Plain(bnb.dequantize_4bit(packed, state), bias)


def rounded_int8(weight: Tensor, bias: Tensor | None) -> Plain:
    """Weights as one scale a row would give them back."""
    scales = weight.abs().amax(1, keepdim=True) / 127
    return Plain((weight / scales).round() * scales, bias)


@pytest.mark.parametrize(("precision", "rounded"), [("int8", rounded_int8), ("4bit", rounded_nf4)])
@pytest.mark.parametrize("arch", ["qwen2", "phi3"])
def test_quantised_models_on_the_cpu(
    precision: str, rounded: Any, arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_checkpoint(tmp_path / arch, arch, std=0.1)
    wide, narrow = flat(path), flat(path, precision=precision)
    monkeypatch.setattr(loading, "kind_of", lambda precision, device: rounded)
    same, ids = flat(path), random_ids(2, 14)
    ctx = narrow.open(2, 16)
    first = narrow.prefill(ctx, ids[:, :13], torch.tensor([13, 13])).logits
    got = torch.cat((first, narrow.forward(ctx, ids[:, 13:]).logits), 1)
    wanted, unrounded = (m.forward(m.open(2, 16), ids).logits[:, 12:] for m in (same, wide))
    assert deviation(got, wanted) < 0.03
    assert deviation(got, wanted) < deviation(got, unrounded) or precision == "int8"
    assert not torch.equal(got, unrounded)
    assert narrow.info.precision == precision
    assert narrow.info.parameters == wide.info.parameters
    assert narrow.info.weight_bytes < 0.7 * wide.info.weight_bytes
