"""What only an NVIDIA GPU can show: precisions, memory given back, steps that never wait for the host."""

from __future__ import annotations

import ctypes
import gc
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.decoders.base import Needs
from edge_tui.engine.events import Noticed
from edge_tui.engine.models.attention import attend, hides_later_keys
from edge_tui.engine.models.masks import Masks
from edge_tui.engine.ops.l2_fetch import GRANULARITY, LINE
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.models.architectures import make_tiny
from tests.engine.models.references import (
    CASES,
    FAMILIES,
    FAMILY_CASES,
    checkpoint,
    deviation,
    flat,
    one_by_one,
    random_ids,
    reference,
)
from tests.engine.models.test_transformers_tier import load, make_other
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer
from tests.engine.watch import watch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edge_tui.engine.local import LocalEngine
    from edge_tui.engine.models.cache import FlatContext
    from edge_tui.engine.models.flat import FlatModel

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
    pytest.mark.timeout(600),  # minutes go into compiling kernels where none are cached
]
DEVICE = "cuda:0"
MIB = 2**20
PRECISIONS: dict[str, tuple[torch.dtype, float]] = {
    "float32": (torch.float32, 1e-3),
    "float16": (torch.float16, 0.02),
    "bfloat16": (torch.bfloat16, 0.08),
    "int8": (torch.float16, 0.1),
    "4bit": (torch.bfloat16, 0.6),
}


def allocated() -> int:
    gc.collect()
    torch.cuda.synchronize()
    return int(torch.cuda.memory_allocated())


@pytest.fixture(autouse=True)
def warm() -> None:
    """Brings up what stays allocated for the life of the process, such as cuBLAS workspaces."""
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = torch.randn(64, 64, device=DEVICE, dtype=dtype)
        x @ x


def test_a_fused_model_has_whole_lines_fetched(tmp_path: Path) -> None:
    driver, size = ctypes.CDLL("libcuda.so.1"), ctypes.c_size_t()
    assert driver.cuCtxSetLimit(GRANULARITY, ctypes.c_size_t(64)) == 0  # as it is before any model
    path = make_checkpoint(tmp_path / "model", "qwen2")
    flat(path, device=DEVICE, dtype=torch.bfloat16, precision="bfloat16")
    assert driver.cuCtxGetLimit(ctypes.byref(size), GRANULARITY) == 0
    assert size.value == LINE


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("arch", ["qwen2", "phi3"])
def test_precisions(precision: str, arch: str, tmp_path: Path) -> None:
    dtype, bound = PRECISIONS[precision]
    path = make_checkpoint(tmp_path / arch, arch, hidden=128, intermediate=256, std=0.08)
    wide, ids = flat(path), random_ids(2, 24)
    wanted = wide.forward(wide.open(2, 32), ids).logits
    first_of_all = flat(path, device=DEVICE, dtype=dtype, precision=precision)  # libraries keep something
    first_of_all.forward(first_of_all.open(2, 32), ids.to(DEVICE))
    first_of_all.release()
    before = allocated()
    model = flat(path, device=DEVICE, dtype=dtype, precision=precision)
    assert allocated() - before == pytest.approx(model.info.weight_bytes, rel=0.1, abs=MIB / 4)
    ctx = model.open(2, 32)
    on_device = ids.to(DEVICE)
    first = model.prefill(ctx, on_device[:, :16]).logits
    got = torch.cat((first, one_by_one(model, ctx, on_device[:, 16:])), 1)
    assert deviation(got.cpu(), wanted[:, 15:]) < bound
    model.release()
    del ctx, got, first
    assert allocated() - before < MIB / 4


@pytest.mark.parametrize(("k", "span"), [(5, 5), (5, 37), (512, 1100)])
def test_a_prompt_attends_to_all_before_it_without_a_mask(k: int, span: int) -> None:
    q, kv = torch.randn(1, k, 6, 64).bfloat16(), torch.randn(1, 4, 1200, 64).bfloat16()
    if not hides_later_keys(torch.device(DEVICE), q.dtype, 64):
        pytest.skip("torch has no flash kernel here")
    mask = Masks(frozenset({0}), torch.float32).make(torch.arange(span - k, span)[None], span)[0]
    keys, values = kv[:, :, :span].chunk(2, 1)
    wanted = attend(q.float(), keys.float(), values.float(), mask)
    keys, values = kv.to(DEVICE)[:, :, :span].chunk(2, 1)
    got = attend(q.to(DEVICE), keys, values, None)
    torch.testing.assert_close(got.cpu().float(), wanted, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("case", CASES)
def test_families(case: str, tmp_path: Path) -> None:
    path = checkpoint(tmp_path / "c", case)
    model, host, ids = flat(path, device=DEVICE), flat(path), random_ids(3, 40)
    wanted = host.forward(host.open(3, 64), ids).logits
    ctx, ids = model.open(3, 64), ids.to(DEVICE)
    got = model.prefill(ctx, ids[:, :30], chunk=8).logits[:, 0]
    assert deviation(got.cpu(), wanted[:, 29]) < 1e-3
    ctx.truncate(torch.tensor([18, 30, 5], device=DEVICE))
    ctx.reorder(torch.tensor([1, 2, 0], device=DEVICE))
    for step in range(4):
        now = torch.stack([ids[1, 30 + step], ids[2, 5 + step], ids[0, 18 + step]])[:, None]
        right = torch.stack([wanted[1, 30 + step], wanted[2, 5 + step], wanted[0, 18 + step]])
        assert deviation(model.forward(ctx, now).logits[:, 0].cpu(), right) < 1e-3


@pytest.mark.parametrize("precision", ["bfloat16", "4bit"])
def test_steps_never_wait_and_can_be_captured(precision: str, tmp_path: Path) -> None:
    path = make_checkpoint(tmp_path / "c", hidden=128, intermediate=256, std=0.08)
    model = flat(path, device=DEVICE, dtype=torch.bfloat16, precision=precision)
    assert model.caps.capture
    prompt = random_ids(2, 10).to(DEVICE)
    lengths = torch.tensor([10, 7], device=DEVICE)

    def start() -> tuple[Any, torch.Tensor]:
        ctx = model.open(2, 64)
        first = model.prefill(ctx, prompt).logits.argmax(-1)
        ctx.truncate(lengths)
        return ctx, first

    ctx, ids = start()
    torch.cuda.set_sync_debug_mode("error")
    try:
        plain = []
        for _ in range(12):
            ids = model.forward(ctx, ids).logits.argmax(-1)
            plain.append(ids)
        ctx.truncate(lengths)
        ctx.reorder(torch.tensor([0, 1]).pin_memory().to(DEVICE, non_blocking=True))
    finally:
        torch.cuda.set_sync_debug_mode("default")

    ctx, first = start()
    ids = first.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ids.copy_(model.forward(ctx, ids).logits.argmax(-1))
    ids.copy_(first)
    ctx.length.copy_(lengths)
    for wanted in plain:
        graph.replay()
        assert torch.equal(ids, wanted)
    assert ctx.length.tolist() == [22, 19]


@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_transformers_tier(precision: str, kind: str, tmp_path: Path) -> None:
    dtype, _ = PRECISIONS[precision]
    path = make_other(tmp_path / kind, kind)
    host, ids = load(path), random_ids(2, 20, vocab=96)
    wanted = host.forward(host.open(2, 24), ids).logits
    load(path, device=DEVICE, dtype=dtype, precision=precision).release()
    before = allocated()
    model = load(path, device=DEVICE, dtype=dtype, precision=precision)
    ctx = model.open(2, 24)
    got = model.forward(ctx, ids.to(DEVICE)).logits
    assert deviation(got.cpu(), wanted) < (0.6 if precision in ("int8", "4bit") else 0.15)
    model.release()
    del ctx, got
    assert allocated() - before < MIB / 4


@pytest.mark.parametrize("family", FAMILY_CASES)
def test_a_captured_step_holds_wherever_rows_have_got_to(family: str, tmp_path: Path) -> None:
    """One graph, replayed past windows and past the positions that were there when it was captured."""
    path = checkpoint(tmp_path / "m", family)
    ids = random_ids(2, 56).to(DEVICE)
    expected = flat(path).forward(flat(path).open(2, 64), ids.cpu()).logits
    model = flat(path, device=DEVICE)
    assert (model.fused is not None) == model.config.is_fusible
    assert model.caps.capture
    root = model.open(1, 64)
    model.prefill(root, ids[:1, :4])
    ctx, new = root.fork(2), ids[:, 4:5].clone()
    model.forward(ctx, new)  # warms up
    ctx.truncate(torch.tensor([4, 4], device=DEVICE))
    graph, bound = torch.cuda.CUDAGraph(), ctx.bound
    with torch.inference_mode(), torch.cuda.graph(graph):
        logits = model.forward(ctx, new).logits
    ctx.count_on_host(bound - ctx.bound)
    for i in range(4, 56):
        new.copy_(ids[:1, i : i + 1].expand(2, 1))
        ctx.reserve(1)
        graph.replay()
        ctx.count_on_host(1)
        assert deviation(logits.cpu(), expected[:1, i : i + 1].expand(2, 1, -1)) < 1e-3, i


@pytest.mark.parametrize(
    "family", ["gemma2", "gemma3_text", "gemma4 E", "olmo2", "gpt2", "qwen3_moe", "granitemoe", "gpt_oss"]
)
@pytest.mark.parametrize("strategy", ["greedy", "top_p", "beam"])
def test_a_run_of_another_family_is_captured(
    family: str, strategy: str, tmp_path: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    path = checkpoint(tmp_path / "m", family)
    save_tokenizer(path)
    answers = []
    for device in ("cpu", DEVICE):
        engine = open_engine()
        engine.assign("model", ModelSpec(str(path), precision="float32", device=device))
        for prompt in ("the fox", "the fox and"):  # the second begins with what the first one read
            seen = watch(engine, Request(prompt, strategy, seed=1, max_length=40))
            answers.append((device, list(seen.finished.answer or seen.ids)))
            assert not [n.message for n in seen.all(Noticed) if "uncaptured" in n.message]
    on_cpu, on_gpu = ([ids for where, ids in answers if where == device] for device in ("cpu", DEVICE))
    assert on_cpu == on_gpu


SIXTEEN_BITS_WIDE = ("gemma", "gemma2", "gemma3_text", "glm4", "granite", "olmo2", "olmo3", "smollm3")


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8", "4bit"])
@pytest.mark.parametrize("family", SIXTEEN_BITS_WIDE)
def test_fused_families_in_few_bits(family: str, precision: str, tmp_path: Path) -> None:
    """One position, several, and several rows, against transformers in float32."""
    dtype, bound = PRECISIONS[precision]
    sizes = {"vocab_size": 320, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    path = make_tiny(tmp_path / "m", family, std=0.08, **sizes | FAMILIES[family])
    ids = random_ids(2, 26)
    with torch.inference_mode():
        wanted = reference(path)(ids).logits
    model = flat(path, device=DEVICE, dtype=dtype, precision=precision)
    assert model.fused is not None
    for rows in (1, 2):
        ctx, new = model.open(rows, 64), ids[:rows].to(DEVICE)
        got = [model.prefill(ctx, new[:, :16]).logits]
        pieces = (new[:, 16:17], new[:, 17:22], new[:, 22:24], new[:, 24:25], new[:, 25:])
        got += [model.forward(ctx, piece).logits.clone() for piece in pieces]
        assert deviation(torch.cat(got, 1).cpu(), wanted[:rows, 15:]) < bound, rows


@pytest.mark.parametrize("case", ["qwen2", "phi3", "gemma2", "gemma3_text", "olmo2", "granite", "cohere"])
@pytest.mark.parametrize("rows", [1, 3])
def test_captured_steps_give_the_layers_that_a_cpu_gives(case: str, rows: int, tmp_path: Path) -> None:
    """One graph writes states, early logits and past states to the same places, wherever rows have got to."""
    path = checkpoint(tmp_path / "m", case)
    ids = random_ids(rows, 40)
    model, host = flat(path, device=DEVICE), flat(path)
    needs = Needs(hidden=(0, 2, 1), early=(1, 0), past=True)

    def after_prompt(model: FlatModel) -> FlatContext:
        root = model.open(1, 64, past=True)
        root.needs = needs
        model.prefill(root, ids[:1, :20].to(model.info.device))
        return root if rows == 1 else root.fork(rows)

    on_host, ctx = after_prompt(host), after_prompt(model)
    new, parent = ids[:, 20:21].to(DEVICE), torch.arange(rows, device=DEVICE).flip(0)
    model.forward(ctx, new)  # warms up
    ctx.truncate(torch.full((rows,), 20, device=DEVICE))
    graph, bound = torch.cuda.CUDAGraph(), ctx.bound
    with torch.inference_mode(), torch.cuda.graph(graph):
        out = model.forward(ctx, new)
        if rows > 1:
            ctx.reorder(parent)
    ctx.count_on_host(bound - ctx.bound)
    for i in range(20, 40):
        new.copy_(ids[:, i : i + 1])
        ctx.reserve(1)
        graph.replay()
        ctx.count_on_host(1)
        wanted = host.forward(on_host, ids[:, i : i + 1])
        for name in ("logits", "hidden", "early"):
            assert deviation(getattr(out, name).cpu(), getattr(wanted, name)) < 1e-3, (name, i)
        if rows > 1:
            on_host.reorder(parent.cpu())
        assert out.past is not None
        assert wanted.past is not None
        assert deviation(out.past[:, : i + 1].cpu(), wanted.past[:, : i + 1]) < 1e-3, i
        assert ctx.length.tolist() == on_host.length.tolist()


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8"])
def test_logits_beside_early_ones_are_as_exact_as_alone(precision: str, tmp_path: Path) -> None:
    """Fused steps give float32 whatever the weights are, also after a prompt that plain operations read.

    Tensor cores, which take the rows of early layers beside the last one's, read them in the weights' type:
    the head's input is rounded once. Sizes cannot tell that from a result that is rounded.
    """
    path, (dtype, _) = checkpoint(tmp_path / "m", "qwen2"), PRECISIONS[precision]
    ids = random_ids(1, 12).to(DEVICE)
    model = flat(path, device=DEVICE, dtype=dtype, precision=precision)
    logits = []
    for needs in (Needs(), Needs(early=(0, 1)), Needs(hidden=(2,), early=(1,), past=True)):
        ctx = model.open(1, 32, past=needs.past)
        ctx.needs = needs
        model.prefill(ctx, ids[:, :11])
        logits.append(model.forward(ctx, ids[:, 11:]).logits.clone())
        assert logits[-1].dtype == torch.float32
        assert not torch.equal(logits[-1], logits[-1].to(dtype).float())
        assert deviation(logits[-1], logits[0]) < torch.finfo(dtype).eps


@pytest.mark.parametrize(
    "case",
    [
        "qwen2",
        "mistral windowed",
        "phi3",
        "gemma2",
        "gemma3_text",
        "gemma4_text",
        "gemma4 E",
        "olmo2",
        "gpt2",
    ],
)
@pytest.mark.parametrize("copies", [1, 2])
def test_one_captured_step_of_several_contexts(case: str, copies: int, tmp_path: Path) -> None:
    """One graph for prompts of very different lengths, replayed as they grow; each row is as on a CPU."""
    path, lengths = checkpoint(tmp_path / "m", case), (20, 1, 44)
    ids, rows = random_ids(3, 64), 3 * copies
    wanted = flat(path).forward(flat(path).open(3, 64), ids).logits
    model, on_device = flat(path, device=DEVICE), ids.to(DEVICE)
    joint = model.open(3, 64)
    for row, length in enumerate(lengths):
        model.prefill(joint.row(row), on_device[row : row + 1, :length])
    ctx = joint if copies == 1 else joint.fork(copies)

    def tokens(step: int) -> torch.Tensor:
        each = [ids[row, length + step] for row, length in enumerate(lengths)]
        return torch.stack(each).repeat_interleave(copies)[:, None].to(DEVICE)

    start, new = ctx.length.clone(), tokens(0)
    model.forward(ctx, new)  # warms up
    ctx.truncate(start)
    graph, bound = torch.cuda.CUDAGraph(), ctx.bound
    with torch.inference_mode(), torch.cuda.graph(graph):
        logits = model.forward(ctx, new).logits
    ctx.count_on_host(bound - ctx.bound)
    for step in range(19):
        new.copy_(tokens(step))
        ctx.reserve(1)
        graph.replay()
        ctx.count_on_host(1)
        right = torch.stack([wanted[row, length + step] for row, length in enumerate(lengths)])
        assert deviation(logits[:, 0].cpu(), right.repeat_interleave(copies, 0)) < 1e-3, step
    assert ctx.length.tolist() == [length + 19 for length in lengths for _ in range(copies)]
    assert ctx.lengths() == ctx.length.tolist()
    assert ctx.rows == rows


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8", "4bit"])
def test_rows_of_several_contexts_round_as_precisions_do(precision: str, tmp_path: Path) -> None:
    """Two rows go through other products than one: their logits differ by no more than the precision does."""
    dtype, bound = PRECISIONS[precision]
    path = make_checkpoint(tmp_path / "m", hidden=128, intermediate=256, std=0.08)
    model, ids = flat(path, device=DEVICE, dtype=dtype, precision=precision), random_ids(2, 30).to(DEVICE)
    joint, alone = model.open(2, 64), [model.open(1, 64) for _ in range(2)]
    for row, length in enumerate((20, 3)):
        model.prefill(joint.row(row), ids[row : row + 1, :length])
        model.prefill(alone[row], ids[row : row + 1, :length])
    for step in range(6):
        new = ids[:, 20 + step : 21 + step]
        got = model.forward(joint, new).logits.clone()
        each = [model.forward(ctx, new[row : row + 1]).logits for row, ctx in enumerate(alone)]
        assert deviation(got.cpu(), torch.cat(each).cpu()) < bound, step
