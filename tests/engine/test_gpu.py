"""Checks on a GPU: precisions, memory that comes back, the gauge, tokens up to ties."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge_tui.engine.events import Loaded, Unloaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Precision, Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.test_beside import watch_pair
from tests.engine.watch import settle, watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    pytest.mark.timeout(1200),
]

PROMPT = "the quick brown fox"
COMPILING = 600.0
"""Seconds after which a run counts as hung: where no kernel is cached, minutes go into compiling them."""


@pytest.fixture(scope="module")
def middling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 100 million parameters: large enough for memory to be more than workspaces."""
    return make_checkpoint(
        tmp_path_factory.mktemp("models") / "middling",
        arch="qwen2",
        vocab=32_000,
        layers=8,
        hidden=768,
        heads=12,
        kv_heads=2,
        intermediate=3072,
        context=2048,
        dtype=torch.bfloat16,
        std=0.05,
    )


@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16", "float16", "int8", "4bit"])
def test_every_precision_decodes_and_gives_its_memory_back(
    open_engine: Callable[..., LocalEngine], middling: Path, precision: Precision
) -> None:
    engine = open_engine()
    engine.assign("model", ModelSpec(str(middling), precision, "cuda:0"))
    seen = watch(engine, Request(PROMPT, strategy="top_p", max_length=64, seed=1), timeout=COMPILING)
    loaded = seen.all(Loaded)[0]
    assert loaded.device == "cuda:0"
    assert seen.finished.new_tokens == len(seen.ids) >= 1
    assert seen.finished.peak_bytes
    assert seen.finished.peak_bytes >= loaded.weight_bytes
    engine.unload("model")
    gone = next(event for event in settle(engine, Unloaded) if isinstance(event, Unloaded))
    speed, peak = seen.finished.tokens_per_second, seen.finished.peak_bytes
    sizes = (loaded.weight_bytes, peak, gone.before_bytes, gone.after_bytes)
    print(precision, f"{speed:.0f} tok/s; MB of weights, peak, before and after:", [b >> 20 for b in sizes])
    assert gone.before_bytes - gone.after_bytes >= loaded.weight_bytes * 0.99


@pytest.mark.parametrize(
    ("one", "other"), [("top_p", "top_k"), ("speculative", "contrastive"), ("beam", "mirostat")]
)
def test_two_runs_in_turn_replay_their_own_graphs_and_leave_no_context(
    open_engine: Callable[..., LocalEngine], middling: Path, one: str, other: str
) -> None:
    engine = open_engine()
    for role in ("model", "amateur", "draft"):
        engine.assign(role, ModelSpec(str(middling), "float32", "cuda:0"))
    requests = [Request(PROMPT, strategy, seed=5, max_length=48) for strategy in (one, other)]
    own = []
    for each in requests:
        # Of a prompt that is known the last token alone is read, which is another product.
        watch(engine, replace(each, prompt="0", max_length=1), timeout=COMPILING)
        own.append(watch(engine, each, timeout=COMPILING).ids)
    allocated = []
    for _ in range(3):
        watch(engine, replace(requests[0], prompt="0", max_length=1), timeout=COMPILING)
        first, second, _ = watch_pair(engine, *requests, COMPILING)
        assert [first.ids, second.ids] == own
        watch(engine, replace(requests[0], prompt="0", max_length=1), timeout=COMPILING)
        allocated.append(torch.cuda.memory_allocated(0))
    assert allocated[2] - allocated[1] < 2**20


@pytest.mark.parametrize("strategy", ["top_p", "beam", "contrastive", "cfg", "dola"])
def test_the_same_prompt_and_seed_give_the_same_text_in_16_bit(
    open_engine: Callable[..., LocalEngine], middling: Path, strategy: str
) -> None:
    engine = open_engine()
    for role in ("model", "amateur"):
        engine.assign(role, ModelSpec(str(middling), "bfloat16", "cuda:0"))
    request = Request(PROMPT, strategy, seed=5, max_length=200)
    first, *others = (watch(engine, request, timeout=COMPILING) for _ in range(3))
    for other in others:
        assert other.ids == first.ids
        assert other.column("raw_logp") == first.column("raw_logp")


def rounds(engine: LocalEngine, model: Path) -> tuple[list[int], list[int]]:
    """Loads, runs and unloads twelve times; lists the bytes after each: in the allocator, on the device.

    The first two rounds bring the driver's context, the compiled kernels and what libraries keep.
    """
    allocated: list[int] = []
    used: list[int] = []
    for turn in range(12):
        engine.assign("model", ModelSpec(str(model), "bfloat16", "cuda:0"))
        request = Request(PROMPT, strategy=("beam", "top_p")[turn % 2], max_length=16)
        watch(engine, request, timeout=COMPILING)
        engine.unload("model")
        settle(engine, Unloaded)
        allocated.append(torch.cuda.memory_allocated(0))
        free, total = torch.cuda.mem_get_info(0)
        used.append(total - free)
    return allocated, used


def test_rounds_of_load_run_unload_leave_nothing_in_the_allocator(
    open_engine: Callable[..., LocalEngine], middling: Path
) -> None:
    allocated, _ = rounds(open_engine(), middling)
    assert allocated[-1] - allocated[1] <= 0.01 * 2**20


@pytest.mark.proof
def test_rounds_of_load_run_unload_leave_nothing_on_the_device(
    open_engine: Callable[..., LocalEngine], middling: Path
) -> None:
    # A proof, since proofs run one after another: the driver does not tell whose memory grew.
    _, used = rounds(open_engine(), middling)
    assert used[-1] <= 1.01 * used[1]


def test_half_precision_says_what_float32_says_up_to_ties(
    open_engine: Callable[..., LocalEngine], middling: Path
) -> None:
    runs = {}
    for precision in ("float32", "bfloat16"):
        engine = open_engine()
        engine.assign("model", ModelSpec(str(middling), precision, "cuda:0"))
        request = Request(PROMPT, strategy="greedy", max_length=64)
        runs[precision] = watch(engine, request, timeout=COMPILING)
    reference, half = runs["float32"], runs["bfloat16"]
    pairs = enumerate(zip(reference.ids, half.ids, strict=False))
    first = next((index for index, (a, b) in pairs if a != b), None)
    if first is None:
        return
    best, second = reference.column("top_logp")[first][:2]
    print(f"first divergence at token {first}, gap {best - second:.4f} nats")
    # bfloat16 keeps 8 bits: logits of magnitude 10 are off by up to a few hundredths.
    assert best - second < 0.25


def test_the_gauge_agrees_with_nvidia_smi() -> None:
    from edge_tui.machine.nvml import Gpu

    held = torch.empty(1 << 30, dtype=torch.uint8, device="cuda:0")
    gpu = Gpu("cuda:0")
    fields = "--query-gpu=memory.used,memory.total"
    query = ["nvidia-smi", fields, "--format=csv,noheader,nounits", f"--id={gpu.uuid()}"]
    line = subprocess.run(query, capture_output=True, text=True, check=True).stdout
    used, total = (int(part) << 20 for part in line.split(","))
    sample = gpu.sample()
    assert sample.used is not None
    assert sample.total is not None
    assert abs(sample.total - total) <= 0.01 * total
    assert abs(sample.used - used) <= max(0.02 * total, 600 << 20)
    del held


def test_the_demo_pair_decodes_contrastively(open_engine: Callable[..., LocalEngine]) -> None:
    engine = open_engine(model="demo/expert", amateur="demo/amateur")
    engine.assign("model", ModelSpec("demo/expert", device="cuda:0"))
    engine.assign("amateur", ModelSpec("demo/amateur", device="cpu"))
    request = Request("def fibonacci(n):", strategy="contrastive", max_length=64)
    seen = watch(engine, request, timeout=COMPILING)
    assert {event.device for event in seen.all(Loaded)} == {"cuda:0", "cpu"}
    assert len(seen.ids) >= 1
