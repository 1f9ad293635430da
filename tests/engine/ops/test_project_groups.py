"""The product of tokens with codes in groups against the dequantised weights, in every form and shape."""

from __future__ import annotations

import pytest
import torch

from edge_tui.engine.models.fused_cuda import MAX_TOKENS
from tests.engine.ops.random_groups import KINDS
from tests.engine.ops.test_project import DEVICE, SURROUNDINGS, Case, check, configs

CUT = configs.Config(block_n=16, block_k=512, warps=2, tensor=True)
SOME = ("Q4_0", "Q4_K", "AWQ g128", "Q6_K")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "tokens", [1, 4, pytest.param(2, marks=pytest.mark.proof), pytest.param(8, marks=pytest.mark.proof)]
)
def test_every_form_of_codes(kind: str, tokens: int) -> None:
    check(Case(kind, tokens, 24, 512, norm=True), CUT)


@pytest.mark.parametrize("kind", SOME)
@pytest.mark.parametrize(("norm", "gate", "residual", "bias"), SURROUNDINGS)
def test_surroundings(kind: str, norm: bool, gate: bool, residual: bool, bias: bool) -> None:
    check(Case(kind, 3, 20, 256, norm=norm, gate=gate, residual=residual, bias=bias, wide=not residual), CUT)


@pytest.mark.parametrize("kind", SOME)
def test_float16(kind: str) -> None:
    check(Case(kind, 5, 20, 256, torch.float16, norm=True, residual=True), CUT)


@pytest.mark.parametrize(("kind", "columns"), [("Q4_1", 576), ("Q8_0", 96), ("AWQ g64", 192), ("Q5_0", 32)])
def test_sizes_that_chunks_do_not_divide(kind: str, columns: int) -> None:
    check(Case(kind, 2, 7, columns, norm=True), CUT)
    check(Case(kind, MAX_TOKENS, 34, columns, gate=True), configs.Config(32, 1024, 4, tensor=True))


@pytest.mark.parametrize("kind", SOME)
def test_the_table_has_a_cut_for_every_product(kind: str) -> None:
    for tokens in (1, MAX_TOKENS):
        check(Case(kind, tokens, 12, 256, norm=True, gate=True), config=None)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 5, 8, 16])
def test_true_shapes(kind: str, tokens: int) -> None:
    for config in (None, CUT, configs.Config(32, 1024, 4, tensor=True)):
        check(Case(kind, tokens, 4608, 3584, norm=True, bias=True), config, DEVICE)
        check(Case(kind, tokens, 3584, 18944, residual=True), config, DEVICE)
        check(Case(kind, tokens, 9728, 1024, torch.float16, norm=True, gate=True), config, DEVICE)
