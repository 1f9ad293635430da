"""The attention kernel against its reference: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_tui.engine.models.architectures import RopeConfig
from edge_tui.engine.models.rope import tables
from edge_tui.engine.ops.forked_context import join_fork
from tests.engine.ops import reference

launch = pytest.importorskip("edge_tui.engine.ops.triton.launch")
attend_triton = pytest.importorskip("edge_tui.engine.ops.triton.attend")
DEVICE = "cpu" if launch.INTERPRETED else "cuda"
TINY = attend_triton.Tuning(block=16, stages=1)


@dataclass(frozen=True)
class Case:
    """Shapes of one call; `lengths` also gives the rows."""

    lengths: tuple[int, ...]
    k: int = 1
    heads: int = 4
    kv_heads: int = 2
    d: int = 16
    rotary: int = 0
    window: int = 0
    norm: bool = False
    over_heads: bool = False
    sinks: bool = False
    scale: float = 0.0
    cap: float = 0.0
    tables: tuple[int, int] = (0, 0)
    """Columns before and after this layer's in the tables of angles."""
    still: bool = False
    """True if nothing is rotated."""
    capacity: int = 80
    base: int | tuple[int, ...] = -1
    """Of a forked context, one for each row that prompts lie in; −1 makes a plain one."""
    room: int = 48
    dtype: torch.dtype = torch.float32
    programs: int = 8
    seed: int = 0


def inputs(case: Case, device: str = DEVICE) -> dict[str, Any]:
    """Random arguments. What no call may read is poisoned."""
    gen = torch.Generator().manual_seed(case.seed)
    rows, tokens, width = len(case.lengths), len(case.lengths) * case.k, 2 * case.kv_heads

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=gen).to(device, case.dtype)

    length = torch.tensor(case.lengths)
    at = torch.arange(case.capacity)
    root = random(rows, width, case.capacity, case.d)
    fork = base = owner = None
    if case.base == -1:
        root.masked_fill_((at >= length[:, None])[:, None, :, None].to(device), torch.nan)
    else:
        prompts = torch.tensor(case.base).view(-1)
        root = root[: len(prompts)]
        root.masked_fill_((at >= prompts[:, None])[:, None, :, None].to(device), torch.nan)
        copies = rows // len(prompts)
        of_row = prompts.repeat_interleave(copies)
        fork = random(rows, width, case.room, case.d)
        unused = torch.arange(case.room) >= (length - of_row).max()
        fork.masked_fill_(unused[:, None].to(device), torch.nan)
        base = of_row.to(device)
        own = torch.randint(copies, (rows, case.room), generator=gen, dtype=torch.int32)
        owner = (own + (torch.arange(rows) // copies * copies)[:, None]).int().to(device)
    rope = RopeConfig("default", 1e4, case.rotary or case.d, case.capacity, case.capacity)
    cos, sin = tables(rope, case.capacity, device, case.dtype)
    if any(case.tables):
        cos, sin = (
            F.pad(table, case.tables, value=9.0).narrow(1, case.tables[0], cos.shape[1])
            for table in (cos, sin)
        )
    if case.still:
        cos, sin = cos[:, :0], sin[:, :0]
    return {
        "qkv": random(tokens, (case.heads + width) * case.d),
        "root": root,
        "fork": fork,
        "base": base,
        "owner": owner,
        "length": length.to(device),
        "cos": cos,
        "sin": sin,
        "out": torch.full((tokens, case.heads * case.d), torch.nan, device=device, dtype=case.dtype),
        "scratch": attend_triton.Scratch(rows, case.k, case.heads, case.d, device, case.programs),
        "heads": case.heads,
        "kv_heads": case.kv_heads,
        "k": case.k,
        "qk_norm": random(case.heads + case.kv_heads, case.d) if case.norm else None,
        "over_heads": case.over_heads,
        "sinks": 3 * random(case.heads) if case.sinks else None,
        "eps": 1e-6,
        "window": case.window,
        "scale": case.scale,
        "cap": case.cap,
    }


def copied(given: dict[str, Any]) -> dict[str, Any]:
    """The same arguments in memory of their own, what is masked anyway without its poison."""
    mine = {name: x.clone() if isinstance(x, Tensor) else x for name, x in given.items()}
    for name in ("root", "fork"):
        if mine[name] is not None:
            mine[name].nan_to_num_(0.0)
    return mine


def check(case: Case, tuning: Any = None, bound: float | None = None) -> None:
    """Compares outputs, new keys and values, owners and all that must not change."""
    given = inputs(case)
    wanted = copied(given)
    reference.attend(**wanted)
    attend_triton.attend(**given, tuning=tuning)
    bound = bound or (1e-4 if case.dtype == torch.float32 else 1e-2)
    assert deviation(given["out"], wanted["out"]) < bound
    for name in ("root", "fork"):
        if given[name] is not None:
            assert deviation(given[name].nan_to_num(0.0), wanted[name]) < bound
    if given["owner"] is not None:
        assert torch.equal(given["owner"], wanted["owner"])
    assert not given["scratch"].arrived.any()


def deviation(got: Tensor, wanted: Tensor) -> float:
    """Largest error over the largest value."""
    error = (got.double() - wanted.double()).abs().max()
    return float(error / wanted.double().abs().max().clamp_min(1e-9))


TINY_CASES = {
    "one row": Case((37,)),
    "nothing before": Case((0, 0), k=2),
    "ragged, off the block": Case((5, 33, 64, 0)),
    "at the end of the buffer": Case((79, 48)),
    "several positions": Case((21, 4), k=3, heads=6, norm=True),
    "verification": Case((31,), k=5, heads=14),
    "partial rotary": Case((40,), rotary=8, norm=True),
    "odd width": Case((35,), d=24, norm=True),
    "window": Case((50, 7), window=20, heads=2),
    "window, several positions": Case((50, 18), k=4, window=17),
    "window shorter than the call": Case((33,), k=5, window=2),
    "sinks": Case((50, 7), window=20, sinks=True, programs=16),
    "sinks, several positions": Case((50, 0), k=3, heads=6, sinks=True),
    "sinks, a fork": Case((45, 45), base=20, sinks=True, programs=12),
    "fork": Case((30, 30), base=13),
    "fork, nothing grown": Case((13, 13), base=13, k=2),
    "fork, no prompt": Case((20, 20), base=0),
    "fork, on the block": Case((48, 48), base=16, heads=2, norm=True),
    "fork, window": Case((45, 45), base=20, window=30, k=2),
    "two prompts of two rows": Case((30, 30, 62, 62), base=(13, 45)),
    "three prompts, window": Case((70, 14, 5), base=(66, 10, 1), window=20, k=2, norm=True),
    "scores scaled and capped": Case((50, 7), scale=0.5, cap=2.0, programs=16),
    "scores capped, several positions": Case((50, 18), k=4, window=17, cap=1.5),
    "a part of the angles": Case((40, 3), rotary=8, tables=(16, 8), norm=True),
    "norms over all heads": Case((40, 3), heads=6, norm=True, over_heads=True, programs=12),
    "norms over all heads, a fork": Case((30, 30), base=13, norm=True, over_heads=True),
    "nothing rotated": Case((40, 3), k=2, norm=True, still=True),
    "float16": Case((37, 12), k=2, dtype=torch.float16),
    "bfloat16": Case((37, 12), norm=True, dtype=torch.bfloat16),
    "bfloat16 fork": Case((37, 37), base=20, dtype=torch.bfloat16),
}

FEW = (
    *("ragged, off the block", "several positions", "window, several positions", "partial rotary"),
    *("sinks", "fork, on the block", "fork, window", "two prompts of two rows", "float16"),
    *("scores scaled and capped", "a part of the angles", "nothing rotated"),
    "norms over all heads",
)
"""One case of each part of the kernel; the others, whose shapes lie on its edges, in the long tests."""


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.proof) for name in TINY_CASES]
)
def test_the_kernel_is_its_reference(name: str) -> None:
    if launch.INTERPRETED and TINY_CASES[name].dtype == torch.bfloat16:
        pytest.skip("Triton's interpreter multiplies the bits of bfloat16 as if they were integers")
    check(TINY_CASES[name], TINY)


@pytest.mark.parametrize(
    ("programs", "least"),
    [pytest.param(1, 1, marks=pytest.mark.proof), (4, 2), pytest.param(16, 1, marks=pytest.mark.proof)],
)
def test_however_the_keys_are_cut(programs: int, least: int) -> None:
    check(Case((70, 33), programs=programs, k=2), replace(TINY, least=least))


@pytest.mark.parametrize("base", [-1, 10])
def test_past_the_end_nothing_is_written(base: int) -> None:
    case = Case((58, 58), k=4, capacity=60 if base < 0 else 80, base=base, room=50)
    given = inputs(case)
    wanted = copied(given)
    reference.attend(**wanted)
    attend_triton.attend(**given, tuning=TINY)
    cache = "root" if base < 0 else "fork"
    assert deviation(given[cache].nan_to_num(0.0), wanted[cache]) < 1e-4
    if base >= 0:
        assert torch.equal(given["owner"], wanted["owner"])


@pytest.mark.parametrize(("rows", "room"), [(1, 5), (3, 700), (8, 130)])
def test_rows_follow_their_parents(rows: int, room: int) -> None:
    gen = torch.Generator().manual_seed(rows)
    owner = torch.randint(rows, (rows, room), generator=gen, dtype=torch.int32).to(DEVICE)
    parent = torch.randint(rows, (rows,), generator=gen).to(DEVICE)
    wanted = owner[parent]
    attend_triton.follow(owner, parent)
    assert torch.equal(owner, wanted)


def test_the_reference_is_attention() -> None:
    """The reference itself against torch's own attention over keys that were rotated one by one."""
    case = Case((9, 5), k=3, heads=4, norm=True, rotary=8, capacity=16)
    given = copied(inputs(case, "cpu"))
    before = given["root"].clone()
    reference.attend(**given)
    qkv = given["qkv"].view(2, 3, 8, 16)
    heads = F.rms_norm(qkv[:, :, :6], (16,), None, 1e-6) * given["qk_norm"]
    for row, n in enumerate(case.lengths):
        for j in range(3):
            for head in range(6):
                x, angle = heads[row, j, head], (n + j) * 1e4 ** -(torch.arange(0, 8, 2) / 8)
                a, b = x[:4].clone(), x[4:8].clone()
                x[:4] = a * angle.cos() - b * angle.sin()
                x[4:8] = b * angle.cos() + a * angle.sin()
        new = torch.cat((heads[row, :, 4:], qkv[row, :, 6:]), 1).transpose(0, 1)
        kv = torch.cat((before[row, :, :n], new), 1)
        assert torch.allclose(given["root"][row, :, : n + 3], kv, atol=1e-5)
        assert torch.equal(given["root"][row, :, n + 3 :], before[row, :, n + 3 :])
        seen = torch.arange(n + 3) <= torch.arange(n, n + 3)[:, None]
        query = heads[row, :, :4].transpose(0, 1)
        wanted = F.scaled_dot_product_attention(query, kv[:2], kv[2:], seen, enable_gqa=True)
        got = given["out"].view(2, 3, 4, 16)[row].transpose(0, 1)
        assert torch.allclose(got, wanted, atol=1e-5)


def test_a_fork_is_what_its_rows_own() -> None:
    root, fork = torch.zeros(1, 2, 8, 1), torch.arange(2.0)[:, None, None, None].expand(2, 2, 6, 1) + 1
    owner = torch.tensor([[0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]], dtype=torch.int32)
    seen = join_fork(root, fork, torch.tensor([3, 3]), owner)
    assert seen[:, 0, :, 0].tolist() == [[0, 0, 0, 1, 2, 2, 1, 1], [0, 0, 0, 2, 2, 1, 1, 1]]
    prompts = torch.tensor([7.0, 8.0])[:, None, None, None].expand(2, 2, 8, 1)
    seen = join_fork(prompts, fork, torch.tensor([3, 5]), owner)
    assert seen[:, 0, :, 0].tolist() == [[7, 7, 7, 1, 2, 2, 1, 1], [8, 8, 8, 8, 8, 2, 2, 1]]


QWEN2_HALF_B = Case((), heads=14, kv_heads=2, d=64, capacity=2048)
LLAMA3_1B = Case((), heads=32, kv_heads=8, d=64, capacity=2048)
QWEN3 = Case((), heads=16, kv_heads=8, d=128, norm=True, capacity=2048)
QWEN2_7B = Case((), heads=28, kv_heads=4, d=128, capacity=4224)
LLAMA2_7B = Case((), heads=32, kv_heads=32, d=128, capacity=1100)
PHI3 = Case((), heads=32, kv_heads=32, d=96, window=1000, capacity=2048)
PHI_PARTIAL = Case((), heads=8, kv_heads=2, d=80, rotary=32, capacity=700)
GEMMA2_2B = Case((), heads=8, kv_heads=4, d=256, scale=1 / 16, cap=50.0, capacity=2048)
GEMMA3_1B = Case((), heads=4, kv_heads=1, d=256, norm=True, tables=(256, 0), capacity=2048)
OLMO2_1B = Case((), heads=16, kv_heads=16, d=128, norm=True, over_heads=True, capacity=2048)
TRUE_SHAPES = {
    "olmo-2-1b": replace(OLMO2_1B, lengths=(777,)),
    "gemma-2-2b": replace(GEMMA2_2B, lengths=(777,)),
    "gemma-2-2b, 5 positions": replace(GEMMA2_2B, lengths=(517,), k=5),
    "gemma-3-1b, windowed": replace(GEMMA3_1B, lengths=(1500, 33), window=512),
    "gemma-3-1b, 2 rows of 8 positions": replace(GEMMA3_1B, lengths=(517, 33), k=8),
    "gemma-2-2b, 4 beams": replace(GEMMA2_2B, lengths=(1100,) * 4, base=903, room=512),
    "gemma-2-2b, float32": replace(GEMMA2_2B, lengths=(500,), dtype=torch.float32),
    "qwen2-0.5b": replace(QWEN2_HALF_B, lengths=(300,)),
    "qwen2-0.5b, float16": replace(QWEN2_HALF_B, lengths=(301,), dtype=torch.float16),
    "qwen2-0.5b, 8 rows": replace(QWEN2_HALF_B, lengths=(0, 1, 63, 64, 65, 255, 1000, 2047)),
    "qwen2-0.5b, 5 positions": replace(QWEN2_HALF_B, lengths=(517,), k=5),
    "qwen2-0.5b, 2 rows of 8 positions": replace(QWEN2_HALF_B, lengths=(517, 33), k=8),
    "llama-3.2-1b": replace(LLAMA3_1B, lengths=(777,)),
    "qwen3": replace(QWEN3, lengths=(70, 1500), k=3),
    "qwen2-7b": replace(QWEN2_7B, lengths=(4097,)),
    "qwen2-7b, 5 positions": replace(QWEN2_7B, lengths=(4000,), k=5),
    "qwen2-7b, 4 beams": replace(QWEN2_7B, lengths=(1100,) * 4, base=903, room=512),
    "qwen2-7b, 2 prompts of 2 rows": replace(
        QWEN2_7B, lengths=(1100, 1100, 340, 340), base=(903, 143), room=512
    ),
    "qwen2-7b, 4 windowed beams": replace(QWEN2_7B, lengths=(1100,) * 4, base=903, room=512, window=600),
    "llama-2-7b": replace(LLAMA2_7B, lengths=(1001,)),
    "llama-2-7b, 8 rows": replace(LLAMA2_7B, lengths=(90, 91, 92, 93, 500, 501, 1, 1000)),
    "phi-3": replace(PHI3, lengths=(1500, 400), k=2),
    "partial rotary, odd width": replace(PHI_PARTIAL, lengths=(640, 5), k=2),
    "float32": replace(QWEN2_7B, lengths=(500, 40), k=5, dtype=torch.float32),
}


def true_case(name: str) -> Case:
    case = TRUE_SHAPES[name]
    programs = torch.cuda.get_device_properties(DEVICE).multi_processor_count
    return replace(case, programs=programs, dtype=case.dtype if "float" in name else torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
class TestOnAGpu:
    @pytest.fixture(autouse=True, params=[False, True], ids=["in turn", "dependent"])
    def launch(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(launch, "dependent_launch", request.param)

    @pytest.mark.parametrize("name", TRUE_SHAPES)
    def test_true_shapes(self, name: str) -> None:
        check(true_case(name))

    @pytest.mark.parametrize(
        "tuning", [attend_triton.choose_tuning(True, 128, 1), attend_triton.choose_tuning(False, 64, 1)]
    )
    def test_both_tunings(self, tuning: Any) -> None:
        check(true_case("qwen2-7b, 4 beams"), tuning)
        check(true_case("qwen2-0.5b, 5 positions"), tuning)

    @pytest.mark.parametrize("name", ["qwen2-0.5b, 8 rows", "qwen2-7b", "qwen2-7b, 4 beams"])
    def test_replays_give_the_same_bits(self, name: str) -> None:
        """A captured graph, replayed while lengths grow and shrink, twice over; against the reference."""
        given = inputs(true_case(name))
        for part in ("root", "fork"):
            if given[part] is not None:
                given[part].nan_to_num_(0.0)
        wanted, begin = copied(given), given["length"].clone()
        attend_triton.attend(**given)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            attend_triton.attend(**given)
        answers: list[Tensor] = []
        before = copied(given)
        for _ in range(2):
            for part in ("root", "fork", "owner"):  # a step that begins earlier writes over later ones' past
                if given[part] is not None:
                    given[part].copy_(before[part])
            for step in range(0, -40, -13):
                given["length"].copy_((begin + step).clamp(min=0))
                given["out"].fill_(torch.nan)
                graph.replay()
                answers.append(given["out"].clone())
        half = len(answers) // 2
        for first, second in zip(answers[:half], answers[half:], strict=True):
            assert torch.equal(first, second)
        reference.attend(**wanted)
        assert deviation(answers[0], wanted["out"]) < 1e-2
        assert not given["scratch"].arrived.any()

    def test_a_chain_of_kernels_sees_what_came_before(self) -> None:
        """Steps one after the other in one graph, each attending to what the last one wrote."""
        case = true_case("qwen2-0.5b, 5 positions")
        given = inputs(replace(case, lengths=(60, 61), k=1))
        given["root"].nan_to_num_(0.0)
        wanted, fed = copied(given), torch.randn(50, *given["qkv"].shape, device=DEVICE)
        graph = torch.cuda.CUDAGraph()
        got = torch.zeros(50, *given["out"].shape, dtype=case.dtype, device=DEVICE)

        def steps() -> None:
            for i, qkv in enumerate(fed):
                given["qkv"].copy_(qkv)
                attend_triton.attend(**given)
                got[i].copy_(given["out"])
                given["length"].add_(1)

        steps()
        given["length"].copy_(wanted["length"])
        with torch.cuda.graph(graph):
            steps()
        graph.replay()
        for i, qkv in enumerate(fed):
            wanted["qkv"].copy_(qkv)
            reference.attend(**wanted)
            assert deviation(got[i], wanted["out"]) < 1e-2
            wanted["length"].add_(1)
