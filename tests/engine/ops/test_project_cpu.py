"""A CPU's packed products against plain float32 ones by the same numbers."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.ops import linear
from edge_tui.engine.ops.cpu import project as project_cpu
from edge_tui.engine.ops.cpu.fine_columns import choose
from edge_tui.engine.ops.cpu.packed_sizes import code_bytes, fits_int4, int8_head_bytes
from edge_tui.engine.ops.cpu.project import (
    PACK,
    can_half,
    can_int4,
    can_int8_dot,
    can_int8_vector,
    pack_codes,
    pack_half,
    pack_int4,
    pack_int8,
    pack_int8_vector,
    project,
    unpack_int4,
)
from edge_tui.engine.ops.linear import CpuLinear, codes_on_cpu, int8_head_on_cpu, int8_on_cpu
from tests.engine.ops.random_groups import KINDS as FORMS
from tests.engine.ops.random_groups import random_groups

if TYPE_CHECKING:
    from torch import Tensor

needs_int8 = pytest.mark.skipif(not can_int8_dot(), reason="no integer products here")
needs_int4 = pytest.mark.skipif(not can_int4(), reason="no packed int4 here")
needs_vectors = pytest.mark.skipif(not can_int8_vector(), reason="no integer products in wide vectors here")
needs_half = pytest.mark.skipif(not can_half(), reason="no packed float16 here")
INT8 = [
    "int8",
    pytest.param("int8 dot", marks=needs_int8),
    pytest.param("int8 vector", marks=needs_vectors),
]
KINDS = [*INT8, pytest.param("int4", marks=needs_int4)]
DOT = INT8[1:]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def widened(kind: str, weight: Tensor) -> Tensor:
    """What a packed matrix stands for."""
    if kind == "int4":
        return unpack_int4(*pack_int4(weight)[:2]).float().t()
    if kind == "int8":
        codes, scales, _ = pack_int8(weight)
        return codes.float() * scales[:, None]
    step = weight.float().abs().amax(1, keepdim=True) / 127
    return (weight / step).round() * step


def packed(kind: str, weight: Tensor, bias: Tensor | None) -> tuple[Any, ...]:
    """`project`'s arguments after the kind."""
    codes, scales, opaque = PACK[kind](weight)
    return codes, scales, bias, opaque


def relative(got: Tensor, wanted: Tensor) -> float:
    return float((got.float() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 15, 16, 130])
@pytest.mark.parametrize(("shape", "dtype"), [((160, 96), torch.float32), ((96, 320), torch.bfloat16)])
def test_products(kind: str, tokens: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
    weight, bias = normal(*shape), normal(shape[0], seed=1).to(dtype)
    x = (normal(tokens, shape[1], seed=2) * torch.logspace(-1, 1, shape[1])).to(dtype)
    before = x.clone()
    got = project(x, kind, *packed(kind, weight, bias))
    wanted = x.float() @ widened(kind, weight).t() + bias.float()
    assert got.dtype == dtype
    assert torch.equal(x, before)
    exact = kind in ("int8 dot", "int8 vector") and dtype == torch.float32
    assert relative(got, wanted) < (2e-4 if exact else 6e-3)


@pytest.mark.parametrize("kind", INT8)
@pytest.mark.parametrize("tokens", [1, 20])
@pytest.mark.parametrize("columns", [7, 72])
def test_columns_of_any_number(kind: str, tokens: int, columns: int) -> None:
    """torch's int8 kernel takes 16 at once and, given fewer, reads what lies behind the matrix."""
    weight, x = normal(40, columns), normal(tokens, columns, seed=2)
    behind = [torch.full((n,), torch.nan) for n in range(16, 4096, 16)]
    del behind  # memory that is handed out next holds no numbers
    got = project(x, kind, *packed(kind, weight, None))
    wanted = x @ widened(kind, weight)[:, :columns].t()
    assert relative(got, wanted) < 6e-3


@pytest.mark.parametrize("kind", DOT)
def test_loud_activations_cost_the_quiet_ones_nothing(kind: str) -> None:
    """One eight-bit step of an activation a thousand times the others would swallow them."""
    weight, x = normal(64, 256), normal(2, 256, seed=1)
    x[0, 7] = 1000.0
    weight[:, 7] = 0.0
    got = project(x, kind, *packed(kind, weight, None))
    assert relative(got, x @ widened(kind, weight).t()) < 0.01


def loud_columns(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """A head and activations that have the same few columns far above the others, as published models do."""
    weight, x = normal(rows, columns), normal(20, columns, seed=1)
    weight[:, ::40] *= 5.0
    x[:, ::40] *= 10.0
    return weight, x


@pytest.mark.parametrize("kind", INT8)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_heads_widest_columns_have_more_bits(
    kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits are five times nearer than with one step a row, unless activations are rounded anyway."""
    monkeypatch.setattr(linear, "_int8_kind", lambda _: kind)
    weight, x = loud_columns(160, 320)
    x, bias = x.to(dtype), normal(160, seed=2).to(dtype)
    wanted, before = x.float() @ weight.t() + bias.float(), x.clone()
    fine, plain = (pack(weight, bias) for pack in (int8_head_on_cpu, int8_on_cpu))
    assert isinstance(fine, CpuLinear)
    assert fine.kind == kind
    assert fine(x).dtype == dtype
    assert fine.parameters == plain.parameters
    if kind != "int8" and dtype == torch.float32:
        assert relative(fine(x), wanted) < relative(plain(x), wanted) / 5
    assert relative(fine(x), wanted) < 6e-3
    assert torch.equal(x, before)


@pytest.mark.parametrize("shape", [(96, 7), (40, 32), (4100, 72)])
def test_a_head_of_any_shape_is_counted_to_the_byte(shape: tuple[int, int]) -> None:
    weight, x = normal(*shape), normal(3, shape[1], seed=1)
    weight[3] = 0.0
    head = int8_head_on_cpu(weight)
    assert head.nbytes == int8_head_bytes(*shape)
    assert relative(head(x), x @ weight.t()) < 6e-3


def test_a_loud_row_does_not_choose_the_fine_columns() -> None:
    weight, _ = loud_columns(160, 320)
    loud = weight.clone()
    loud[7] = 1e4 * normal(320, seed=3)
    one, other = choose(weight), choose(loud)
    assert set(range(0, 320, 40)) <= set(one.columns.tolist()) & set(other.columns.tolist())
    assert torch.equal(one.factors[:320:40], other.factors[:320:40])
    assert torch.equal(one.factors[:320:40], torch.full((8,), 4.0))


@pytest.mark.parametrize("odd", [0.0, 1e-30, float("inf"), float("nan")])
def test_factors_are_powers_of_two_whatever_a_head_holds(odd: float) -> None:
    weight = torch.full((64, 48), odd)
    weight[:, 0] = 1.0
    factors = choose(weight).factors
    assert bool((factors.log2() % 1 == 0).all())
    assert bool((factors > 0).all())


@pytest.mark.parametrize("kind", DOT)
def test_no_activation_is_no_answer(kind: str) -> None:
    weight, bias = normal(64, 32), normal(64, seed=1)
    got = project(torch.zeros(2, 32), kind, *packed(kind, weight, bias))
    assert torch.equal(got, bias.expand(2, -1))


FOUR_BITS = [name for name, form in FORMS.items() if form.bits == 4 and not form.levels]


@needs_int4
@pytest.mark.parametrize("name", FOUR_BITS)
def test_four_bit_codes_stay_what_they_are(name: str) -> None:
    """Where bfloat16 holds scales and subtrahends, every weight is exactly the file's."""
    form = FORMS[name]
    groups = random_groups(form, 96, 256)
    rng = torch.Generator().manual_seed(1)
    scale = 2.0 ** torch.randint(-9, -4, (96, 256 // form.group, 1), generator=rng)
    whole = torch.randint(0, 9, scale.shape, generator=rng).float()
    least = {"own": whole * scale, "zero": whole, "none": whole[..., :0]}[form.least]
    exact = replace(groups, form=replace(form, outer=False), outer=None)
    exact = replace(exact, scale=torch.cat((scale, least), -1).half())
    weight, scales, _ = pack_codes(exact)
    assert torch.equal(unpack_int4(weight, scales).float().t(), exact.dequantise())


@needs_int4
@pytest.mark.parametrize("name", FOUR_BITS)
@pytest.mark.parametrize("tokens", [1, 5, 130])
def test_products_with_codes_are_those_with_the_files_weights(name: str, tokens: int) -> None:
    groups, x = random_groups(FORMS[name], 96, 256), normal(tokens, 256, seed=2)
    matrix, bias = codes_on_cpu(groups, normal(96, seed=1)), normal(96, seed=1)
    assert isinstance(matrix, CpuLinear)
    assert matrix.kind == "int4"
    assert matrix.nbytes == code_bytes(groups.form, 96, 256) + bias.nbytes
    assert relative(matrix(x), x @ groups.dequantise().t() + bias) < 6e-3


@pytest.mark.parametrize("name", ["Q8_0", "Q6_K", "GPTQ 8 bit g128", "NF4"])
@pytest.mark.parametrize("rows", [96, 2304])
def test_other_codes_are_rounded_to_float16_where_that_is_faster(name: str, rows: int) -> None:
    groups, x = random_groups(FORMS[name], rows, 256), normal(3, 256, seed=2)
    matrix = codes_on_cpu(groups)
    assert isinstance(matrix, CpuLinear) == (rows > 96 and can_half())
    assert matrix.nbytes == code_bytes(groups.form, rows, 256)
    assert relative(matrix(x), x @ groups.dequantise().t()) < 3e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 300])
def test_scripted_is_the_same(kind: str, tokens: int) -> None:
    arguments, x = packed(kind, normal(96, 64), normal(96, seed=1)), normal(tokens, 64, seed=2)
    assert torch.equal(torch.jit.script(project)(x, kind, *arguments), project(x, kind, *arguments))


@needs_int8
@needs_vectors
def test_both_integer_products_are_one() -> None:
    """The same codes of the same activations, summed exactly."""
    weight, x = normal(160, 320), normal(5, 320, seed=1)
    one, other = (project(x, kind, *packed(kind, weight, None)) for kind in ("int8 dot", "int8 vector"))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


@needs_half
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("tokens", "shape"), [(1, (64, 32)), (9, (161, 96)), (130, (15, 700))])
def test_halves_of_a_file_in_16_bit_lose_nothing(
    stored: torch.dtype, tokens: int, shape: tuple[int, int]
) -> None:
    weight = (normal(*shape) * 0.02).to(stored).float()
    weight[0, 0] = 1e-30  # less than float16 has, and less than anyone would notice
    if stored == torch.float16:
        weight[0, 0] = 0.0
    bias, x, halves = normal(shape[0], seed=1), normal(tokens, shape[1], seed=2), pack_half(weight)
    assert halves is not None
    arguments = (*halves[:2], bias, halves[2])
    got = project(x, "half", *arguments)
    assert relative(got, x.double() @ weight.double().t() + bias.double()) < 1e-6
    scripted = torch.jit.script(project)(x, "half", *arguments)
    assert torch.equal(scripted, got)


@needs_half
@pytest.mark.parametrize("odd", [1.0 + 2.0**-20, 1e5, float("inf"), float("nan")])
def test_what_float16_does_not_hold_is_not_packed(odd: float) -> None:
    weight = normal(4100, 8).half().float()
    assert pack_half(weight) is not None
    weight[4099, 3] = odd
    assert pack_half(weight) is None


@needs_vectors
def test_packing_leaves_the_engine_of_others_alone() -> None:
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack_int8_vector(normal(32, 64))
    assert torch.backends.quantized.engine == before


@needs_int4
@pytest.mark.parametrize("rows", [32, 64, 4096 + 96])
def test_int4_gives_codes_back(rows: int) -> None:
    """Whole numbers whose groups span 0 to 15 are their own codes, wherever packing puts them."""
    weight = torch.randint(0, 16, (rows, 96), generator=torch.Generator().manual_seed(0)).float()
    weight[:, ::32], weight[:, 1::32] = 0.0, 15.0
    packed, scales, _ = pack_int4(weight)
    assert (packed.shape, packed.dtype) == ((rows, 48), torch.uint8)
    assert (scales.shape, scales.dtype) == ((3, rows, 2), torch.bfloat16)
    assert torch.equal(unpack_int4(packed, scales).float(), weight.t())


@needs_int4
def test_int4_is_closer_than_nf4() -> None:
    from bitsandbytes import functional as bnb

    weight = normal(256, 512)
    theirs = bnb.dequantize_4bit(*bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4"))
    assert relative(widened("int4", weight), weight) < 0.9 * relative(theirs, weight)


@needs_int4
def test_a_group_of_one_value_is_that_value() -> None:
    weight = torch.full((32, 64), 0.25)
    assert torch.equal(unpack_int4(*pack_int4(weight)[:2]).float(), weight.t())


def test_shapes_that_int4_takes() -> None:
    assert fits_int4(96, 64)
    assert not fits_int4(40, 64)
    assert not fits_int4(64, 72)


@pytest.mark.parametrize("ability", [can_int8_dot, can_int8_vector, can_int4])
def test_an_operation_that_torch_lacks_is_not_used(ability: object, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_weight: Tensor) -> tuple[Tensor, ...]:
        raise NotImplementedError("not compiled in")

    monkeypatch.setattr(project_cpu, "pack_int8_dot", refuse)
    monkeypatch.setattr(project_cpu, "pack_int8_vector", refuse)
    monkeypatch.setattr(project_cpu, "pack_int4", refuse)
    assert ability.__wrapped__() is False  # type: ignore[attr-defined]
