"""The matrix kernels against their reference: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_tui.engine.models.feed_forward import ACTIVATIONS
from edge_tui.engine.models.fused_cuda import MAX_TOKENS
from edge_tui.engine.ops import code_groups
from edge_tui.engine.ops.packed import PackedMatrix
from edge_tui.engine.ops.triton.availability import available, hash_triton
from tests.engine.ops import random_groups, reference
from tests.engine.ops.reference import dequantise

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
project_triton = pytest.importorskip("edge_tui.engine.ops.triton.project")
configs = pytest.importorskip("edge_tui.engine.ops.triton.project_configs")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
TINY = configs.Config(block_n=8, block_k=64, warps=1)
TENSOR = configs.Config(block_n=32, block_k=256, warps=2, tensor=True)
KINDS = ("plain", "int8")
SURROUNDINGS = [
    (norm, gate, residual, norm ^ bool(gate) ^ residual)
    if norm == bool(gate) != residual
    else pytest.param(norm, gate, residual, norm ^ bool(gate) ^ residual, marks=pytest.mark.proof)
    for norm in (False, True)
    for gate in ("", "silu")
    for residual in (False, True)
]
"""Every pair of what surrounds a product, and in the suite two that have each part once."""
BOUND = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def pack(kind: str, weight: Tensor, bias: Tensor | None = None) -> PackedMatrix:
    """Quantises `[N, K]` the plain way; what a code stands for is checked elsewhere.

    Codes in groups are drawn anew, of the same shape.
    """
    rows, columns = weight.shape
    if form := random_groups.KINDS.get(kind):
        drawn = random_groups.random_groups(form, rows, columns, rows, str(weight.device))
        return code_groups.pack(drawn, bias)
    if kind == "plain":
        return PackedMatrix(kind, weight, None, bias, rows, columns)
    scale = weight.float().abs().amax(1)
    codes = (weight.float() * (127.0 / scale)[:, None]).round().to(torch.int8)
    return PackedMatrix(kind, codes, scale, bias, rows, columns)


@dataclass(frozen=True)
class Case:
    """One product and what surrounds it."""

    kind: str = "plain"
    tokens: int = 1
    rows: int = 20
    columns: int = 128
    dtype: torch.dtype = torch.bfloat16
    norm: bool = False
    gate: str = ""
    residual: bool = False
    bias: bool = False
    factor: float = 1.0
    cap: float = 0.0
    wide: bool = False
    """Float32 output."""


def check(case: Case, config: object | None = TINY, device: str = DEVICE) -> None:
    gen = torch.Generator(device).manual_seed(crc32(repr(case).encode()))

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=gen, device=device)

    weight = (random(case.rows, case.columns) / case.columns**0.5).to(case.dtype)
    bias = random(case.rows).to(case.dtype) if case.bias else None
    packed = pack(case.kind, weight, bias)
    x = (3 * random(case.tokens, case.columns)).to(case.dtype)
    norm = random(case.columns).to(case.dtype) if case.norm else None
    width = case.rows // 2 if case.gate else case.rows
    # Rows around it, which no kernel may touch; poison within.
    frame = torch.full((case.tokens + 2, width), torch.nan, device=device)
    frame = frame.to(torch.float32 if case.wide else case.dtype)
    out = frame[1:-1]
    before = random(case.tokens, width).to(case.dtype) if case.residual else None
    if before is not None and not case.wide:
        out.copy_(before)  # in place, as the residual stream is
    seen = out if before is not None and not case.wide else before

    end = {"gate": case.gate, "factor": case.factor, "cap": case.cap}
    project_triton.project(x, packed, out, norm=norm, eps=1e-5, residual=seen, config=config, **end)

    exact = dequantise(packed, torch.float32).double()
    y = x.float() if norm is None else F.rms_norm(x.float(), (case.columns,), norm.float(), 1e-5)
    terms = F.linear(y.double().square(), exact.square()).sqrt()
    y = F.linear(y.double(), exact, None if bias is None else bias.double())
    if case.gate:
        y, terms = ACTIVATIONS[case.gate](y[:, :width]) * y[:, width:], terms[:, :width] * terms[:, width:]
    y = y * case.factor
    if case.cap:
        y = case.cap * torch.tanh(y / case.cap)
    wanted = y if before is None else y + before.double()
    # About one for each element: where few cancel to nearly nothing, rounding is not relative to that.
    size = max(float(wanted.norm()), wanted.numel() ** 0.5)
    assert float((out.double() - wanted).norm()) / size < BOUND[case.dtype]
    assert frame[0].isnan().all()
    assert frame[-1].isnan().all()

    plain = torch.full_like(out, torch.nan)
    reference.project(x, packed, plain, norm=norm, eps=1e-5, residual=before, **end)
    size = max(size, float(terms.norm()))  # it rounds what it adds up to 16 bit
    assert float((plain.double() - wanted).norm()) / size < BOUND[case.dtype]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [pytest.param(1, marks=pytest.mark.proof), 3])
def test_tokens(kind: str, tokens: int) -> None:
    check(Case(kind, tokens, norm=True, residual=True))


@pytest.mark.parametrize(("kind", "dtype"), zip(("plain", "int8", "plain"), BOUND, strict=True), ids=str)
def test_dtypes(kind: str, dtype: torch.dtype) -> None:
    check(Case(kind, 2, dtype=dtype, norm=True, bias=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("norm", "gate", "residual", "bias"), SURROUNDINGS)
def test_surroundings(kind: str, norm: bool, gate: str, residual: bool, bias: bool) -> None:
    check(Case(kind, 2, norm=norm, gate=gate, residual=residual, bias=bias))


@pytest.mark.parametrize("rows", [pytest.param(1, marks=pytest.mark.proof), 7])
@pytest.mark.parametrize(("kind", "columns"), [("plain", 77), ("plain", 200), ("int8", 60)])
def test_sizes_that_blocks_do_not_divide(kind: str, rows: int, columns: int) -> None:
    config = configs.Config(block_n=4, block_k=128, warps=1)
    check(Case(kind, 1, rows, columns, norm=True), config)
    if rows > 1:
        check(Case(kind, 3, rows // 2 * 2, columns, gate="silu"), config)


@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_float32(kind: str) -> None:
    check(Case(kind, 2, norm=True, wide=True))
    check(Case(kind, 1, residual=True, wide=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, MAX_TOKENS])
def test_the_table_has_a_cut_for_every_product(kind: str, tokens: int) -> None:
    check(Case(kind, tokens, rows=12, columns=64, norm=True, gate="silu"), config=None)


def test_a_size_measured_for_one_token_says_nothing_of_more() -> None:
    """Gemma-3's down projection was, so for more tokens another size stands for it."""
    assert not configs.choose("plain", 1, 1152, 6912).tensor
    assert configs.choose("plain", 4, 1152, 6912) == configs.choose("plain", 4, 2048, 8192)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tokens", "dtype"), [(5, torch.float16), (13, torch.bfloat16)], ids=str)
def test_tensor_cores_take_any_tokens(kind: str, tokens: int, dtype: torch.dtype) -> None:
    check(Case(kind, tokens, 40, 320, dtype, norm=True, residual=True), TENSOR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("norm", "gate", "residual", "bias"), SURROUNDINGS)
def test_tensor_cores_fold_the_surroundings(
    kind: str, norm: bool, gate: str, residual: bool, bias: bool
) -> None:
    case = Case(kind, 3, 20, 128, norm=norm, gate=gate, residual=residual, bias=bias, wide=not residual)
    check(case, configs.Config(block_n=16, block_k=256, warps=4, tensor=True))


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 448), (7, 64), pytest.param(33, 192, marks=pytest.mark.proof)]
)
def test_tensor_cores_take_sizes_that_blocks_do_not_divide(rows: int, columns: int) -> None:
    for kind in KINDS:
        check(Case(kind, 2, rows, columns, norm=True), TENSOR)
        check(Case(kind, 2, 2 * rows, columns, gate="silu"), TENSOR)


@pytest.mark.parametrize("gate", [name for name in ACTIVATIONS if name != "silu"])
def test_every_activation_gates(gate: str) -> None:
    check(Case("plain", 1, gate=gate, dtype=torch.float32))
    check(Case("plain", 2, 32, gate=gate, dtype=torch.float16, wide=True), TENSOR)


@pytest.mark.parametrize(("factor", "cap"), [(0.25, 0.0), (1.0, 2.0), (0.5, 1.5)])
def test_sums_are_scaled_and_capped_before_the_residual(factor: float, cap: float) -> None:
    end = {"residual": True, "factor": factor, "cap": cap}
    check(Case("plain", 1, bias=True, dtype=torch.float32, **end))
    check(Case("int8", 2, 32, dtype=torch.float16, **end), TENSOR)


def test_what_tensor_cores_cannot_take_goes_to_plain_cores() -> None:
    check(Case("plain", 2, columns=76, norm=True), TENSOR)
    check(Case("int8", 2, columns=60), TENSOR)
    check(Case("int8", 2, dtype=torch.float32), TENSOR)


def test_the_norm_bears_loud_and_silent_tokens() -> None:
    for size in (0.0, 1e-6, 3e4):
        x = torch.full((1, 64), size, device=DEVICE).half()
        packed = pack("plain", torch.eye(64, device=DEVICE).half())
        out = torch.full((1, 64), torch.nan, device=DEVICE).half()
        gain = torch.full((64,), 2.0, device=DEVICE).half()
        project_triton.project(x, packed, out, norm=gain, eps=1e-6, config=TINY)
        assert torch.allclose(out, F.rms_norm(x, (64,), gain, 1e-6), rtol=2e-3)


def test_int8_reads_every_code() -> None:
    codes = torch.arange(-128, 128, device=DEVICE).to(torch.int8).view(8, 32)
    packed = PackedMatrix("int8", codes, torch.full((8,), 127.0, device=DEVICE), None, 8, 32)
    out = torch.full((8, 8), torch.nan, device=DEVICE)
    for first in range(0, 32, 8):
        project_triton.project(torch.eye(32, device=DEVICE)[first : first + 8], packed, out, config=TINY)
        assert torch.allclose(out, codes[:, first : first + 8].T.float())


@pytest.mark.parametrize("columns", [64, 1500])
def test_embedding(columns: int) -> None:
    table = torch.randn(9, columns, device=DEVICE).bfloat16()
    apart = torch.tensor([[8, 1], [0, 1], [3, 1]], device=DEVICE)[:, :1].reshape(-1)
    assert apart.stride() == (2,)
    for ids in (torch.tensor([8, 0, 3], device=DEVICE), apart):
        out = torch.full((3, columns), torch.nan, device=DEVICE).bfloat16()
        project_triton.embed(ids, table, out)
        assert torch.equal(out, table[ids])
        project_triton.embed(ids, table, out, 1.5)
        assert torch.allclose(out, table[ids] * 1.5, rtol=1e-2)


def test_triton_is_hashed_in_another_thread() -> None:
    cache = pytest.importorskip("triton.runtime.cache")
    hash_triton().join()
    assert cache.triton_key.cache_info().currsize == 1


def test_kernels_are_available_or_say_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert available() is None
    available.cache_clear()
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "NVIDIA GPU" in str(available())
    available.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def broken(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nMore lines.")

    monkeypatch.setattr(project_triton, "embed", broken)
    monkeypatch.setattr(torch, "arange", lambda *_, **__: torch.zeros(8))
    reason = str(available())
    assert "\n" not in reason
    assert "compiler" in reason
    available.cache_clear()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 5])
def test_true_shapes(kind: str, tokens: int) -> None:
    tensor = configs.Config(block_n=16, block_k=1024, warps=4, tensor=True)
    for config in (None, tensor) if tokens > 1 else (None,):
        check(Case(kind, tokens, 4608, 3584, norm=True, bias=True), config)
        check(Case(kind, tokens, 896, 4864, residual=True), config)
        check(Case(kind, tokens, 9728, 896, norm=True, gate="silu"), config)
    check(Case(kind, tokens, 32003, 896, torch.float16, norm=True, wide=True), config)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("overlap", [False, True])
def test_a_chain_that_overlaps_reads_what_was_written(
    kind: str, overlap: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A residual stream in place and one scratch for all layers, replayed from a graph."""
    monkeypatch.setattr(launch, "dependent_launch", overlap)
    gen = torch.Generator("cuda").manual_seed(5)
    layers = []
    for _ in range(24):
        up = torch.randn(9728, 896, generator=gen, device="cuda").div_(30).bfloat16()
        down = torch.randn(896, 4864, generator=gen, device="cuda").div_(70).bfloat16()
        layers.append((pack(kind, up), pack(kind, down)))
    gain = torch.ones(896, device="cuda").bfloat16()
    start = torch.randn(1, 896, generator=gen, device="cuda").bfloat16()
    stream, inner = start.clone(), torch.empty(1, 4864, device="cuda").bfloat16()

    def run(operation) -> None:  # type: ignore[no-untyped-def]
        for up, down in layers:
            operation(stream, up, inner, norm=gain, eps=1e-6, gate="silu")
            operation(inner, down, stream, residual=stream)

    run(project_triton.project)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(project_triton.project)
    results = []
    for _ in range(50):
        stream.copy_(start)
        inner.fill_(torch.nan)
        graph.replay()
        results.append(stream.clone())
    assert all(torch.equal(result, results[0]) for result in results)
    stream.copy_(start)
    run(reference.project)
    assert float((results[0].float() - stream.float()).norm() / stream.float().norm()) < 0.03
