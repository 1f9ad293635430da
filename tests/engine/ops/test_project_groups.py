"""The product of tokens with codes in groups against the dequantised weights, in every form and shape."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from edge_tui.engine.models.fused_cuda import MAX_TOKENS
from edge_tui.engine.ops import linear, packed_linear
from edge_tui.engine.ops.code_groups import CodeGroups, pack, quantise_nf4
from edge_tui.engine.ops.group_form import NF4, NF4_LEVELS
from edge_tui.engine.ops.packed import CodeFault
from edge_tui.engine.ops.packed_linear import GroupLinear
from edge_tui.engine.ops.quantisation import FOUR_BIT
from tests.engine.ops import reference
from tests.engine.ops.random_groups import KINDS
from tests.engine.ops.test_project import DEVICE, SURROUNDINGS, Case, check, configs, project_triton

CUT = configs.Config(block_n=16, block_k=512, warps=2, tensor=True)
SOME = ("Q4_0", "Q4_K", "AWQ g128", "Q6_K", "NF4")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tokens", [1, 4, pytest.param(2, marks=pytest.mark.proof), pytest.param(8, marks=pytest.mark.proof)]
)
def test_every_form_of_codes(kind: str, tokens: int) -> None:
    check(Case(kind, tokens, 24, 512, norm=True), CUT)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize(("norm", "gate", "residual", "bias"), SURROUNDINGS)
def test_surroundings(kind: str, norm: bool, gate: str, residual: bool, bias: bool) -> None:
    check(Case(kind, 3, 20, 256, norm=norm, gate=gate, residual=residual, bias=bias, wide=not residual), CUT)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize("columns", [256, 1280, 1536])
def test_two_tiles_ahead(kind: str, columns: int) -> None:
    check(Case(kind, 2, 20, columns, norm=True), replace(CUT, ahead=2))


@pytest.mark.parametrize("kind", SOME)
def test_float16(kind: str) -> None:
    check(Case(kind, 5, 20, 256, torch.float16, norm=True, residual=True), CUT)


@pytest.mark.parametrize(
    ("kind", "columns"), [("Q4_1", 576), ("Q8_0", 96), ("AWQ g64", 192), ("Q5_0", 32), ("NF4", 64)]
)
def test_sizes_that_chunks_do_not_divide(kind: str, columns: int) -> None:
    check(Case(kind, 2, 7, columns, norm=True), CUT)
    check(Case(kind, MAX_TOKENS, 34, columns, gate="silu"), configs.Config(32, 1024, 4, tensor=True))


@pytest.mark.parametrize("kind", SOME)
def test_the_table_has_a_cut_for_every_product(kind: str) -> None:
    for tokens in (1, MAX_TOKENS):
        check(Case(kind, tokens, 12, 256, norm=True, gate="silu"), config=None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_each_level_of_nf4_is_as_near_as_8_bits_come(dtype: torch.dtype) -> None:
    codes = torch.arange(64, device=DEVICE).remainder(16).to(torch.uint8).expand(3, 64)
    packed = pack(CodeGroups(NF4, codes, torch.full((3, 1, 1), 2.0, device=DEVICE)))
    wanted = 2.0 * torch.tensor(NF4_LEVELS, device=DEVICE)
    for token in torch.eye(64, device=DEVICE, dtype=dtype).split(8):
        out = torch.full((8, 3), torch.nan, device=DEVICE)
        project_triton.project(token, packed, out, config=CUT)
        exact = wanted[token.argmax(1).remainder(16), None].expand(8, 3)
        assert torch.equal(out == 0.0, exact == 0.0)
        assert bool(((out - exact).abs() <= 0.0023 * exact.abs()).all())


def test_nf4_is_what_bitsandbytes_stores() -> None:
    functional = pytest.importorskip("bitsandbytes").functional
    gen = torch.Generator(DEVICE).manual_seed(1)
    weight = torch.randn(40, 192, device=DEVICE, generator=gen).bfloat16()
    bias = torch.randn(40, device=DEVICE, generator=gen).bfloat16()
    theirs = functional.dequantize_4bit(
        *functional.quantize_4bit(weight.float(), blocksize=64, quant_type="nf4")
    )
    matrix = linear.nf4_on_gpu(weight, bias)
    assert isinstance(matrix, GroupLinear)
    assert torch.equal(reference.dequantise(matrix.packed(), torch.float32), theirs)
    assert matrix.nbytes == FOUR_BIT.nbytes(40, 192, "cuda:0") - 64 + bias.nbytes, (
        "but for bitsandbytes' levels"
    )
    for tokens, bound in ((3, 1e-2), (20, 1e-2)):
        x = torch.randn(tokens, 192, device=DEVICE, generator=gen).bfloat16()
        exact = x.double() @ theirs.double().t() + bias.double()
        assert float((matrix(x).double() - exact).norm() / exact.norm()) < bound


def test_nf4_of_zeros_is_zeros_and_its_matrix_stays() -> None:
    weight = torch.randn(20, 128, device=DEVICE)
    weight[3] = weight[5, :64] = 0.0
    before = weight.clone()
    groups = quantise_nf4(weight)
    assert torch.equal(weight, before)
    assert torch.equal(groups.dequantise() == 0.0, groups.codes == 7)
    assert bool((groups.codes[3] == 7).all())
    assert bool((groups.codes[5, :64] == 7).all())
    assert torch.equal(quantise_nf4(groups.dequantise()).codes, groups.codes)


QUANTISED = """
import sys, torch
from edge_tui.engine.ops.linear import nf4_on_gpu
print(type(nf4_on_gpu(torch.ones(8, 64).bfloat16())).__name__, "bitsandbytes" in sys.modules)
"""


def test_nf4_for_kernels_is_packed_without_bitsandbytes() -> None:
    interpreted = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", QUANTISED], env=interpreted, capture_output=True, text=True, check=False
    )
    assert done.stdout == "GroupLinear False\n", done.stderr[-2000:]


def test_nf4_that_kernels_cannot_take_stays_with_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bitsandbytes")
    assert type(linear.nf4_on_gpu(torch.ones(8, 64))) is linear.Nf4, "float32"
    assert type(linear.nf4_on_gpu(torch.ones(8, 72).bfloat16())) is linear.Nf4, "an odd width"

    def refuse(*_: object) -> None:
        raise CodeFault("wrong")

    monkeypatch.setattr(packed_linear, "check", refuse)
    assert type(linear.nf4_on_gpu(torch.ones(8, 64).bfloat16())) is linear.Nf4


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 5, 8, 16])
def test_true_shapes(kind: str, tokens: int) -> None:
    for config in (None, CUT, configs.Config(32, 1024, 4, tensor=True)):
        check(Case(kind, tokens, 4608, 3584, norm=True, bias=True), config, DEVICE)
        check(Case(kind, tokens, 3584, 18944, residual=True), config, DEVICE)
        check(Case(kind, tokens, 9728, 1024, torch.float16, norm=True, gate="silu"), config, DEVICE)
