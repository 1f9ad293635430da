from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, open_checkpoint
from edge_tui.engine.models import memory_estimate
from edge_tui.engine.models.branches import Branches
from edge_tui.engine.models.capacity import SLACK, round_up
from edge_tui.engine.models.family import families
from edge_tui.engine.models.flat import FlatModel
from edge_tui.engine.models.loader import load
from edge_tui.engine.models.memory_estimate import (
    MemoryEstimate,
    estimate_pair,
    largest_context,
    resolve_precision,
)
from edge_tui.engine.ops.cpu import packed_sizes
from edge_tui.engine.ops.cpu.project import can_half, can_int8_vector
from edge_tui.engine.port import ModelSpec
from edge_tui.machine import devices
from edge_tui.machine.devices import Device, best_device, free_memory, resolve_device
from edge_tui.machine.nvml import GpuSample
from edge_tui.util.formatting import size
from tests.engine.models import references
from tests.engine.models.references import FAMILY_CASES
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GB = 2**30


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Checkpoint]:
    count = iter(range(100))

    def make(arch: str = "qwen2", **kwargs: Any) -> Checkpoint:
        return open_checkpoint(str(make_checkpoint(tmp_path / str(next(count)), arch, **kwargs)))

    return make


@pytest.mark.parametrize(
    ("arch", "precision", "tie"),
    [
        *(("qwen2", precision, False) for precision in ("auto", "bfloat16", "int8", "4bit")),
        *(("qwen2", precision, True) for precision in ("float32", "int8")),
        *((arch, "int8", False) for arch in ("qwen3", "llama", "phi3")),
    ],
)
def test_weights_are_estimated_to_the_byte(
    made: Callable[..., Checkpoint], arch: str, precision: Any, tie: bool
) -> None:
    checkpoint = made(arch, tie=tie, hidden=72, intermediate=88, heads=6, kv_heads=3, dtype=torch.bfloat16)
    expected = memory_estimate.estimate(checkpoint, precision, 64, 1, "cpu")
    info = load(ModelSpec(checkpoint.name, precision, "cpu", 64)).model.info
    assert expected.weights == info.weight_bytes
    assert expected.kv == round_up(64 + SLACK) * info.kv_bytes


@pytest.mark.skipif(not can_int8_vector(), reason="no integer products in wide vectors here")
@pytest.mark.parametrize("precision", ["int8", "4bit"])
def test_matrices_that_are_packed_wider_are_estimated_to_the_byte(
    made: Callable[..., Checkpoint], precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 72 * 96)
    checkpoint = made("qwen2", hidden=72, intermediate=600, heads=6, kv_heads=3)
    expected = memory_estimate.estimate(checkpoint, precision, 64, 1, "cpu")
    model = load(ModelSpec(checkpoint.name, precision, "cpu", 64)).model
    assert isinstance(model, FlatModel)
    assert model.weights.head.kind == "int8 vector"
    assert expected.weights == model.info.weight_bytes


@pytest.mark.skipif(not can_half(), reason="no packed float16 here")
@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_halves_are_estimated_to_the_byte(
    made: Callable[..., Checkpoint], tie: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_sizes, "BIG_MATRIX", 72 * 96)
    checkpoint = made("qwen2", tie=tie, hidden=72, intermediate=600, heads=6, kv_heads=3, dtype=dtype)
    expected = memory_estimate.estimate(checkpoint, "float32", 64, 1, "cpu")
    model = load(ModelSpec(checkpoint.name, "float32", "cpu", 64)).model
    assert isinstance(model, FlatModel)
    assert (model.weights.head.kind == "half") == (dtype == torch.bfloat16)
    assert expected.weights == model.info.weight_bytes


def save_helium(folder: Path, context: int) -> str:
    """Saves a random model of the transformers tier; returns its name."""
    from transformers import HeliumConfig, HeliumForCausalLM

    config = HeliumConfig(
        vocab_size=320, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1,
        head_dim=16, intermediate_size=96, max_position_embeddings=context,
    )  # fmt: skip
    HeliumForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_other_tiers_weights_are_estimated_to_the_byte(tmp_path: Path, precision: Any) -> None:
    loaded = load(ModelSpec(save_helium(tmp_path, 128), precision, "cpu"))
    expected = memory_estimate.estimate(loaded.checkpoint, precision, 128, 1, "cpu")
    assert loaded.model.info.tier == "transformers"
    assert expected.weights == loaded.model.info.weight_bytes
    assert expected.kv == 128 * loaded.model.info.kv_bytes


def _has_mixture(case: str) -> bool:
    """Tells whether a case's family is one of mixtures, which are not quantised."""
    return bool(families()[FAMILY_CASES[case][0]].mixture)


@pytest.mark.parametrize(
    ("family", "precision"),
    [
        *((case, "float32") for case in FAMILY_CASES),
        *(
            pytest.param(case, "int8", marks=pytest.mark.proof)
            for case in FAMILY_CASES
            if not _has_mixture(case)
        ),
    ],
)
def test_every_familys_weights_are_estimated_to_the_byte(tmp_path: Path, family: str, precision: Any) -> None:
    path = references.checkpoint(tmp_path / "m", family)
    save_tokenizer(path)
    checkpoint = open_checkpoint(str(path))
    expected = memory_estimate.estimate(checkpoint, precision, 64, 1, "cpu")
    info = load(ModelSpec(str(path), precision, "cpu", 64)).model.info
    assert info.tier == "flat"
    assert expected.weights == info.weight_bytes
    assert expected.kv == round_up(64 + SLACK) * info.kv_bytes


def test_kv_grows_with_context_and_rows(made: Callable[..., Checkpoint]) -> None:
    checkpoint = made(layers=3, heads=4, kv_heads=2, hidden=64)
    position = 3 * 2 * 2 * 16 * 4
    one = memory_estimate.estimate(checkpoint, "float32", 1000, 1, "cpu")
    assert one.kv == 1536 * position, "steps launched ahead need room, and contexts are rounded up"
    assert memory_estimate.estimate(checkpoint, "bfloat16", 1000, 1, "cpu").kv == one.kv // 2
    assert memory_estimate.estimate(checkpoint, "float32", 0, 1, "cpu").kv == 512 * position
    # Copies of the row that read the prompt; on a GPU rows share that and have room for what is new.
    assert memory_estimate.estimate(checkpoint, "float32", 1000, 4, "cpu").kv == 5 * one.kv
    assert memory_estimate.estimate(checkpoint, "float32", 1000, 4, "cuda:0").kv == 5 * one.kv
    assert (
        memory_estimate.estimate(checkpoint, "float32", 4000, 4, "cuda:0", 200).kv
        == (4096 + 4 * 512) * position
    )


def test_kv_is_what_contexts_and_their_forks_hold(made: Callable[..., Checkpoint]) -> None:
    checkpoint = made(layers=3, heads=4, kv_heads=2, hidden=64, context=2048)
    model: Any = load(ModelSpec(checkpoint.name, "float32", "cpu", 1200)).model
    root = model.open(1, round_up(1200 + SLACK))
    model.prefill(root, torch.ones(1, 1100, dtype=torch.int64))

    def held(*blocks: torch.Tensor) -> int:
        return sum(block.numel() * block.element_size() for block in blocks)

    copied = root.fork(3)
    expected = memory_estimate.estimate(checkpoint, "float32", 1200, 3, "cpu", 100)
    assert held(root.block, copied.block) == expected.kv
    shared = Branches(root.block, 3, [1100])
    expected = memory_estimate.estimate(checkpoint, "float32", 1200, 3, "cuda:0", 100)
    assert held(root.block, *shared.fork) == expected.kv
    two = model.open(2, round_up(1200 + SLACK))
    expected = memory_estimate.estimate(checkpoint, "float32", 1200, 1, "cpu", 100, streams=2)
    assert held(two.block) == expected.kv
    assert "2 × 1,200 positions" in expected.sentence
    expected = memory_estimate.estimate(checkpoint, "float32", 1200, 3, "cpu", 100, streams=2)
    assert held(two.block, two.fork(3).block) == expected.kv
    shared = Branches(two.block, 6, [1100, 4])
    expected = memory_estimate.estimate(checkpoint, "float32", 1200, 3, "cuda:0", 100, streams=2)
    assert held(two.block, *shared.fork) == expected.kv


@pytest.mark.parametrize(
    ("precision", "tier"), [("float32", "flat"), ("bfloat16", "flat"), ("float32", "transformers")]
)
def test_hidden_states_that_are_kept_are_counted_to_the_byte(
    made: Callable[..., Checkpoint], tmp_path: Path, precision: Any, tier: str
) -> None:
    flat = made(layers=3, heads=4, kv_heads=2, hidden=64, context=2048).name
    name = flat if tier == "flat" else save_helium(tmp_path / "helium", 2048)
    checkpoint = open_checkpoint(name)
    model: Any = load(ModelSpec(name, precision, "cpu", 1200)).model
    assert model.info.tier == tier
    root = model.open(1, round_up(1200 + SLACK), past=True)

    def counted(rows: int, device: str = "cpu") -> int:
        each = (
            memory_estimate.estimate(checkpoint, precision, 1200, rows, device, 100, past).kv
            for past in (True, False)
        )
        return next(each) - next(each)

    assert counted(1) == root.past.states.nbytes
    model.prefill(root, torch.ones(1, 9, dtype=torch.int64))
    assert counted(4) == root.past.states.nbytes + root.fork(4).past.states.nbytes
    assert counted(4, "cuda:0") == counted(4), "rows share keys and values there, but not these"


@pytest.mark.parametrize(
    ("arch", "context", "wide", "precision"),
    [
        ("qwen2", 1536, 1408, "float32"),
        ("mistral", 1536, 640, "bfloat16"),
    ],
)
def test_reading_a_prompt_takes_what_is_estimated(
    made: Callable[..., Checkpoint], arch: str, context: int, wide: int, precision: Any
) -> None:
    """Every allocation of a long prompt's last chunks, counted by torch's profiler."""
    checkpoint = made(
        arch, layers=2, hidden=512, heads=8, kv_heads=2, intermediate=wide, vocab=999, context=context
    )
    model = load(ModelSpec(checkpoint.name, precision, "cpu", context)).model
    room = model.open(1, round_up(context + SLACK))
    start = context - 2 * memory_estimate.CHUNK
    ids = torch.randint(0, 300, (1, context - 8))
    if start:
        model.prefill(room, ids[:, :start])
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        model.prefill(room, ids[:, start:])
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))
    expected = memory_estimate.MemoryNeed(checkpoint, precision, 1, 0, "cpu").reading(context)
    assert max(held) == pytest.approx(expected, rel=0.05)


def test_masks_are_counted_where_attention_is_given_them(
    made: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chunk behind others has none where torch's flash kernel runs."""
    full, windowed = made(hidden=256), made("mistral", hidden=256, extra={"sliding_window": 1024})
    distances = 9 * memory_estimate.CHUNK * 8192

    def reading(checkpoint: Checkpoint, precision: Any, capability: tuple[int, int] | None) -> int:
        monkeypatch.setattr(memory_estimate, "compute_capability", lambda device: capability)
        return memory_estimate.MemoryNeed(checkpoint, precision, 1, 0, "cuda:0").reading(8192)

    for precision in ("bfloat16", "float16", "int8"):
        assert reading(full, precision, (8, 0)) < distances
        assert reading(full, precision, (7, 5)) == reading(full, precision, None) > distances
        assert reading(windowed, precision, (9, 0)) > distances
    assert reading(full, "float32", (9, 0)) == reading(full, "float32", None) > distances


def test_kv_of_other_architectures(made: Callable[..., Checkpoint]) -> None:
    def kv(**config: Any) -> int:
        base = made()
        other = {"architectures": ["X"], "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 3}
        stated = {"max_position_embeddings": 10, "vocab_size": 320} | other | config
        made_up = Checkpoint("x", base.path, stated, "X", base.tensors)
        return memory_estimate.estimate(made_up, "float32", 1, 1, "cpu").kv

    assert kv() == 3 * 4 * 32 * 4, "every head has its own keys"
    assert kv(multi_query=True) == 3 * 1 * 32 * 4, "Falcon: one for all"
    assert kv(layer_types=["linear_attention", "full_attention", "linear_attention"]) == 1 * 4 * 32 * 4
    assert kv(num_attention_heads=0) == 0, "recurrent"
    latent = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
    assert kv(**latent) == 3 * 4 * (12 + 8) * 4
    assert (
        kv(text_config={"hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1})
        == 1 * 2 * 32 * 4
    )


def test_what_does_not_fit_says_needed_and_free(
    made: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = made()
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 100_000)
    tight = memory_estimate.estimate(checkpoint, "float32", 256, 1, "cuda:1")
    assert not tight.fits
    for part in ("float32", "cuda:1", size(tight.total), size(100_000), "256 positions"):
        assert part in tight.sentence
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: None)
    unknown = memory_estimate.estimate(checkpoint, "float32", 256, 1, "cuda:1")
    assert unknown.fits
    assert "free" not in unknown.sentence
    for free, fits in ((tight.total, True), (tight.total - 1, False)):
        monkeypatch.setattr(memory_estimate, "free_memory", lambda _device, free=free: free)
        assert memory_estimate.estimate(checkpoint, "float32", 256, 1, "cuda:1").fits == fits


def test_a_pair_shares_a_device_or_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(device: str, total: int) -> MemoryEstimate:
        return MemoryEstimate(device, total - 3, 1, 1, 1, total, 10 * GB, True, "")

    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 10 * GB)
    (both,) = estimate_pair([one("cuda:0", 6 * GB), one("cuda:0", 5 * GB)])
    assert not both.fits
    assert both.weights == 11 * GB - 6
    assert [f.fits for f in estimate_pair([one("cuda:0", 6 * GB), one("cpu", 5 * GB)])] == [True, True]


def test_the_context_shrinks_to_what_memory_holds(
    made: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = made(context=1_000_000)
    need = memory_estimate.estimate(checkpoint, "float32", 100_000, 1, "cpu").total
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: need)
    largest = largest_context(checkpoint, "float32", "cpu")
    assert 80_000 < largest < 95_000
    assert memory_estimate.estimate(checkpoint, "float32", largest, 1, "cpu").total <= 0.9 * need
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 1000)
    assert largest_context(checkpoint, "float32", "cpu") == 0
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 100 * GB)
    assert largest_context(checkpoint, "float32", "cpu") == 1_000_000


def test_auto_precision(made: Callable[..., Checkpoint], monkeypatch: pytest.MonkeyPatch) -> None:
    half, full = made(dtype=torch.float16), made()
    assert resolve_precision(half, "auto", "cuda:0") == ("float16", "float16")
    assert resolve_precision(full, "auto", "cuda:0") == ("float32", "float32")
    assert resolve_precision(half, "auto", "cpu") == ("float32", "float32")
    assert resolve_precision(half, "int8", "cuda:0") == ("int8", "float16")
    assert resolve_precision(half, "4bit", "cpu") == ("4bit", "float32")
    monkeypatch.setattr(memory_estimate, "SMALL", 1000)
    monkeypatch.setattr(memory_estimate, "cpu_has_bfloat16", lambda: True)
    assert resolve_precision(half, "auto", "cpu") == ("bfloat16", "bfloat16")
    monkeypatch.setattr(memory_estimate, "cpu_has_bfloat16", lambda: False)
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 100 * GB)
    assert resolve_precision(half, "auto", "cpu") == ("float32", "float32")
    monkeypatch.setattr(memory_estimate, "free_memory", lambda _device: 4 * half.parameters)
    assert resolve_precision(half, "auto", "cpu") == ("bfloat16", "bfloat16")


# --------------------------------------------------------------------------------------------------- devices


def gpus(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """A machine with GPUs as the driver would report them, where torch holds nothing back."""

    def sample(index: int) -> GpuSample:
        return (
            GpuSample(f"GPU {index}", free=free[index], total=80 * GB) if index < len(free) else GpuSample()
        )

    monkeypatch.setattr(devices, "torch_cuda_version", lambda: "12.8")
    monkeypatch.setattr(devices, "_sample", sample)
    monkeypatch.setattr(devices, "_torch_with_cuda", lambda: None)


def test_the_gpu_with_most_free_memory_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 10 * GB, 30 * GB, 20 * GB)
    assert best_device() == "cuda:1"
    assert resolve_device("auto") == "cuda:1"
    assert resolve_device("cuda") == "cuda:0"
    assert devices.devices()[2] == Device("cuda:2", "GPU 2", 80 * GB, 20 * GB)


def test_a_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, GB)
    with pytest.raises(LookupError, match=r"no device cuda:3; there is cuda:0, cpu"):
        resolve_device("cuda:3")
    monkeypatch.setattr(devices, "torch_cuda_version", lambda: "")
    with pytest.raises(LookupError, match="built without CUDA"):
        resolve_device("cuda:0")


def test_without_a_gpu_the_cpu_is_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "torch_cuda_version", lambda: "")
    monkeypatch.setattr(devices, "_has_mps", lambda: False)
    assert best_device() == "cpu"
    monkeypatch.setattr(devices, "_has_mps", lambda: True)
    assert best_device() == "mps"


def test_free_ram_is_what_the_machine_says() -> None:
    import psutil

    free = free_memory("cpu")
    assert free
    assert 0 < free <= psutil.virtual_memory().total


# ------------------------------------------------------------------------------------------------------- GPU


@pytest.mark.gpu
def test_free_memory_of_a_gpu_follows_the_driver() -> None:
    torch.ones(1, device="cuda:0").item()  # the driver's context takes as much as half a block
    free = free_memory("cuda:0")
    assert free
    assert free == pytest.approx(torch.cuda.mem_get_info(0)[0], rel=0.02)
    block = torch.empty(2**30, dtype=torch.uint8, device="cuda:0")
    assert free - (free_memory("cuda:0") or 0) == pytest.approx(2**30, rel=0.05)
    del block
    assert free_memory("cuda:0") == pytest.approx(free, rel=0.02)
