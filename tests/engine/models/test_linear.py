"""Matrices stored narrow: close to the wide ones, and really smaller."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.models import loading
from edge_tui.engine.ops import linear
from edge_tui.engine.ops.cpu import packed_sizes
from edge_tui.engine.ops.cpu import project as project_cpu
from edge_tui.engine.ops.cpu.fine_columns import choose
from edge_tui.engine.ops.linear import (
    CpuLinear,
    LlmInt8,
    Nf4,
    PlainLinear,
    float32_on_cpu,
    int4_on_cpu,
    int8_head_on_cpu,
    int8_on_cpu,
    nf4_on_gpu,
)
from edge_tui.engine.ops.packed import PrecisionError
from edge_tui.engine.ops.quantisation import head_packer_of, packer_of
from tests.engine.models.references import deviation, flat, random_ids
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


needs_int8 = pytest.mark.skipif(not project_cpu.can_int8_dot(), reason="no integer products here")
needs_vectors = pytest.mark.skipif(not project_cpu.can_int8_vector(), reason="no wide integer products here")
needs_int4 = pytest.mark.skipif(not project_cpu.can_int4(), reason="no packed int4 here")


@pytest.mark.parametrize(
    "kind",
    [
        "int8",
        pytest.param("int8 dot", marks=needs_int8),
        pytest.param("int8 vector", marks=needs_vectors),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_int8(kind: str, bias: bool, rows: int, dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 64, generator=rng)
    weight[3] *= 100  # a loud row must not cost the others their resolution
    weight[4] = 0
    b = torch.randn(96, generator=rng).to(dtype) if bias else None
    x = torch.randn(rows, 64, generator=rng).to(dtype)
    narrow, wide = (
        CpuLinear(kind, weight, b, project_cpu.PACK[kind](weight)),
        PlainLinear(weight.to(dtype), b),
    )
    got, wanted = narrow(x), wide(x)
    assert got.dtype == dtype
    others = [i for i in range(96) if i != 3]
    assert deviation(got[:, others], wanted[:, others]) < 0.03
    assert deviation(got[:, 3], wanted[:, 3]) < 0.03
    assert narrow.parameters == wide.parameters == 96 * 64 + (96 if bias else 0)
    stored = 96 * (512 + 12) if kind == "int8 vector" else 96 * 64
    scales = 96 * (2 if kind == "int8" else 4)
    assert narrow.nbytes == stored + scales + (96 * dtype.itemsize if bias else 0)


def test_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packer_of("float32", "cpu") is head_packer_of("float32", "cpu") is float32_on_cpu
    assert (
        packer_of("float32", "cuda:0")
        is packer_of("float32", "mps")
        is packer_of("bfloat16", "cpu")
        is PlainLinear
    )
    assert packer_of("int8", "cpu") is int8_on_cpu
    assert packer_of("4bit", "cpu") is int4_on_cpu
    assert packer_of("int8", "cuda:0") is LlmInt8
    assert packer_of("4bit", "cuda:1") is nf4_on_gpu
    with pytest.raises(PrecisionError, match="not mps: choose bfloat16"):
        packer_of("4bit", "mps")
    assert head_packer_of("4bit", "cpu") is head_packer_of("int8", "cpu") is int8_head_on_cpu
    assert head_packer_of("4bit", "cuda:0") is head_packer_of("bfloat16", "cpu") is PlainLinear
    with pytest.raises(PrecisionError, match="not mps"):
        packer_of("int8", "mps")


@pytest.mark.skipif(not project_cpu.can_half(), reason="no packed float16 here")
def test_large_matrices_of_16_bit_are_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 64 * 64)
    rng = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(64, 64, generator=rng), torch.randn(64, generator=rng)
    assert type(float32_on_cpu(weight)) is PlainLinear
    weight = weight.bfloat16().float()
    half, plain = float32_on_cpu(weight, bias), PlainLinear(weight, bias)
    assert isinstance(half, CpuLinear)
    assert half.kind == "half"
    assert half.packed() is None
    assert half.parameters == plain.parameters
    assert half.nbytes == 2 * 64 * 512 + 4 * 64
    x = torch.randn(3, 64, generator=rng)
    assert deviation(half(x), plain(x)) < 1e-5
    assert type(float32_on_cpu(weight[:63])) is PlainLinear
    monkeypatch.setattr(project_cpu, "can_half", lambda: False)
    assert type(float32_on_cpu(weight)) is PlainLinear


@pytest.mark.skipif(not project_cpu.can_half(), reason="no packed float16 here")
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_halves_is_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, tie: bool
) -> None:
    folder = make_checkpoint(tmp_path, tie=tie, dtype=dtype)
    plain = flat(folder)
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 1)
    halves = flat(folder)
    assert halves.weights.head.kind == "half"
    assert halves.weights.embedding.dtype == dtype
    assert torch.equal(halves.weights.embedding.float(), plain.weights.embedding)
    assert halves.info.parameters == plain.info.parameters
    ids = random_ids(1, 9)
    logits = []
    for model in (plain, halves):
        ctx = model.open(1, 16)
        model.prefill(ctx, ids[:, :7])
        logits.append(torch.cat([model.forward(ctx, ids[:, i : i + 1]).logits for i in (7, 8)], 1))
    assert deviation(logits[1], logits[0]) < 1e-4


def kind_of(weight: Tensor) -> str:
    packed = int8_on_cpu(weight)
    assert isinstance(packed, CpuLinear)
    return packed.kind


def test_the_kind_of_int8_follows_size_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 64 * 64)
    monkeypatch.setattr(project_cpu, "can_int8_vector", lambda: True)
    assert kind_of(torch.ones(64, 64)) == "int8 vector"
    assert kind_of(torch.ones(63, 64)) == "int8"
    monkeypatch.setattr(project_cpu, "can_int8_vector", lambda: False)
    monkeypatch.setattr(project_cpu, "can_int8_dot", lambda: True)
    assert kind_of(torch.ones(64, 64)) == "int8 dot"
    assert kind_of(torch.ones(63, 64)) == "int8"
    monkeypatch.setattr(project_cpu, "can_int8_dot", lambda: False)
    assert kind_of(torch.ones(64, 64)) == "int8"


def test_what_torch_cannot_pack_is_nf4(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(int4_on_cpu(torch.ones(24, 64))) is Nf4
    monkeypatch.setattr(project_cpu, "can_int4", lambda: False)
    assert type(int4_on_cpu(torch.ones(64, 64))) is Nf4

    def missing() -> None:
        raise ImportError("no module")

    monkeypatch.setattr(linear, "_bitsandbytes", missing)
    with pytest.raises(PrecisionError, match="4bit needs bitsandbytes"):
        int4_on_cpu(torch.ones(64, 64))


def test_int8_of_a_gpu_is_what_bitsandbytes_packs_on_the_way_from_the_host() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(48, 64).bfloat16(), torch.randn(48).bfloat16()
    weight[:, 5] *= 9.0
    narrow, bnb = LlmInt8(weight, bias), pytest.importorskip("bitsandbytes")
    moved = bnb.nn.Int8Params(weight.half(), requires_grad=False, has_fp16_weights=False).to("cpu")
    packed = narrow.packed()
    assert packed is not None
    assert packed.scale is not None
    assert torch.equal(packed.weight, moved.data)
    assert torch.equal(packed.scale, moved.SCB)
    assert narrow.nbytes == 48 * (64 + 4 + 2)
    module = bnb.nn.Linear8bitLt(64, 48, has_fp16_weights=False, threshold=6.0, device="meta").eval()
    module.weight, module.bias = moved, torch.nn.Parameter(bias.half())
    x = torch.randn(3, 64).bfloat16()
    for _ in range(2):  # the first time it moves its codes
        assert torch.equal(narrow(x), module(x.half()).bfloat16())


QUANTISED = """
import sys, torch
from edge_tui.engine.ops.linear import LlmInt8, Nf4
compile_ = torch.compile
x = torch.ones(2, 64)
print(float(Nf4(torch.ones(8, 64))(x).sum()), float(LlmInt8(torch.ones(8, 64))(x).sum()))
print(torch.compile is compile_, "torch._dynamo" in sys.modules)
"""


def test_packing_imports_no_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", QUANTISED], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1024.0", "1024.0", "True", "False"]


@pytest.mark.parametrize("columns", [16, 64, 72, 96, 200, 400])
@pytest.mark.parametrize("n", [1, 3])
def test_nf4_of_every_width_on_the_cpu(columns: int, n: int) -> None:
    torch.manual_seed(columns)
    weight, bias, x = torch.randn(40, columns), torch.randn(40), torch.randn(n, columns)
    narrow = Nf4(weight, bias)
    got, wanted = narrow(x), x @ weight.T + bias
    assert float((got - wanted).norm() / wanted.norm()) < 0.15
    assert narrow.parameters == 40 * columns + 40


def rounded_int4(weight: Tensor, bias: Tensor | None) -> PlainLinear:
    """Weights as 16 steps between the ends of each 32 would give them back."""
    groups = weight.view(len(weight), -1, 32)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((high - low) / 15).bfloat16().float()
    zero = (low + 8 * scale).bfloat16().float()
    codes = ((groups - zero) / scale).round().clamp(-8, 7)
    return PlainLinear((codes * scale + zero).flatten(1), bias)


def rounded_int8(weight: Tensor, bias: Tensor | None) -> PlainLinear:
    """Weights as one scale a row would give them back; small matrices have scales of 16 bits."""
    scales = (weight.abs().amax(1, keepdim=True) / 127).bfloat16().float()
    return PlainLinear((weight / scales).round() * scales, bias)


def rounded_int8_head(weight: Tensor, bias: Tensor | None) -> PlainLinear:
    """The same with half of 64 columns 128 times as fine, which is near enough to the weights themselves."""
    exact = torch.zeros_like(weight, dtype=torch.bool)
    exact[:, choose(weight).columns] = True
    return PlainLinear(torch.where(exact, weight, rounded_int8(weight, None).weight), bias)


@pytest.mark.parametrize(
    ("precision", "rounded"), [("int8", rounded_int8), pytest.param("4bit", rounded_int4, marks=needs_int4)]
)
@pytest.mark.parametrize("arch", ["qwen2", "phi3"])
def test_quantised_models_on_the_cpu(
    precision: str, rounded: Any, arch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_checkpoint(tmp_path / arch, arch, std=0.1)
    wide, narrow = flat(path), flat(path, precision=precision)
    monkeypatch.setattr(loading, "packer_of", lambda precision, device: rounded)
    monkeypatch.setattr(loading, "head_packer_of", lambda precision, device: rounded_int8_head)
    same, ids = flat(path), random_ids(2, 14)
    ctx = narrow.open(2, 16)
    first = narrow.prefill(ctx, ids[:, :13]).logits
    got = torch.cat((first, narrow.forward(ctx, ids[:, 13:]).logits), 1)
    wanted, unrounded = (m.forward(m.open(2, 16), ids).logits[:, 12:] for m in (same, wide))
    assert deviation(got, wanted) < 0.01
    assert deviation(got, wanted) < deviation(got, unrounded)
    assert not torch.equal(got, unrounded)
    assert narrow.info.precision == precision
    assert narrow.info.parameters == wide.info.parameters
    assert narrow.info.weight_bytes < 0.7 * wide.info.weight_bytes
