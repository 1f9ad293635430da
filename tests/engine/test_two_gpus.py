"""Models on two GPUs, and on the second one alone: tokens of one GPU, captured, and all memory given back.

Without two GPUs nothing here runs; `tests/engine/decode/test_two_devices.py` holds what a CPU can show.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.events import Explained, Failed, Loaded, Noticed, Unloaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Precision, Question, Request
from tests.engine.checkpoints.coded import CODINGS, make_coded
from tests.engine.random_checkpoints import TOKENS, make_checkpoint
from tests.engine.test_beside import watch_pair
from tests.engine.watch import Watched, settle, watch

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0
two_gpus = pytest.mark.skipif(GPUS < 2, reason="needs two NVIDIA GPUs")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(GPUS < 1, reason="no NVIDIA GPU"),
    pytest.mark.timeout(1200),
]

ROLES = ("model", "expert", "amateur", "draft")
IDS = tuple(range(30, 50))
COMPILING = 600.0
"""Seconds after which a run counts as hung: where no kernel is cached, minutes go into compiling them."""
TIE = 2e-3
"""Margin below which kernels of another order may choose another token, in float32."""
ENDLESS = {"eos_token_id": TOKENS + 9}
CASES: dict[str, tuple[str, dict[str, float | str], int]] = {
    "contrastive": ("contrastive", {"temperature": 0.9}, 1),
    "contrastive, greedy": ("contrastive", {"temperature": 0.0}, 1),
    "contrastive, three samples": ("contrastive", {"temperature": 0.9}, 3),
    "dexperts": ("dexperts", {"temperature": 0.9}, 1),
    "speculative, greedy": ("speculative", {"temperature": 0.0}, 1),
    "speculative": ("speculative", {"temperature": 1.0}, 1),
    "cfg": ("cfg", {"temperature": 0.9, "negative": "the quick"}, 1),
    "cad": ("cad", {"temperature": 0.9, "question": "the fox"}, 1),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a model for each role; the draft has the main model's weights, so that it agrees."""
    folder = tmp_path_factory.mktemp("models")
    for seed, role in enumerate(ROLES):
        make_checkpoint(
            folder / role,
            layers=4,
            hidden=512,
            heads=8,
            kv_heads=2,
            intermediate=2048,
            vocab=2_000,
            context=1024,
            std=0.05,
            seed=0 if role == "draft" else seed,
            generation=ENDLESS,
            extra=ENDLESS,
        )
    return folder


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Lists for each step whether it was replayed from graphs."""
    steps: list[bool] = []
    launch = Generation.launch

    def watched(generation: Generation) -> None:
        launch(generation)
        steps.append(generation.captured)

    monkeypatch.setattr(Generation, "launch", watched)
    return steps


def assigned(
    open_engine: Callable[..., LocalEngine],
    folder: Path,
    devices: dict[str, str],
    precision: Precision = "float32",
) -> LocalEngine:
    engine = open_engine()
    for role, device in devices.items():
        engine.assign(role, ModelSpec(str(folder / role), precision, device))
    return engine


def on(main: str, other: str) -> dict[str, str]:
    return dict(zip(ROLES, (main, main, other, other), strict=True))


def agree(got: Watched, wanted: Watched, samples: int = 1) -> None:
    """Holds tokens equal up to the first tie of each row."""
    for row in range(samples):
        ids, expected = got.column("id", row), wanted.column("id", row)
        at = next((i for i, (a, b) in enumerate(zip(ids, expected, strict=True)) if a != b), None)
        if at is not None:
            margins = wanted.column("margin", row)
            assert abs(margins[at]) < TIE, f"row {row} parts at token {at}, margin {margins[at]}"


@two_gpus
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("main", ["cuda:0", "cuda:1"])
def test_tokens_are_those_of_one_device_and_steps_are_captured(
    case: str, main: str, open_engine: Callable[..., LocalEngine], folder: Path, launched: list[bool]
) -> None:
    strategy, values, samples = CASES[case]
    other = {"cuda:0": "cuda:1", "cuda:1": "cuda:0"}[main]
    request = Request("", strategy, values, ids=IDS, seed=3, max_length=48, samples=samples)
    together = assigned(open_engine, folder, on("cuda:0", "cuda:0"))
    wanted = watch(together, request, timeout=COMPILING)
    launched.clear()
    apart = assigned(open_engine, folder, on(main, other))
    first = watch(apart, request, timeout=COMPILING)
    assert launched[-1]
    again = watch(apart, request, timeout=COMPILING)  # on the graphs of the first
    assert not [each.message for each in first.all(Noticed) if "uncaptured" in each.message]
    for seen in (first, again):
        assert not seen.all(Failed)
        agree(seen, wanted, samples)


@two_gpus
def test_a_run_goes_on_is_changed_and_explained_on_two_devices(
    open_engine: Callable[..., LocalEngine], folder: Path
) -> None:
    engine = assigned(open_engine, folder, on("cuda:1", "cuda:0"))
    request = Request("", "contrastive", {"temperature": 0.9}, ids=IDS, seed=3, max_length=40)
    whole = watch(engine, request, timeout=COMPILING)
    rest = watch(engine, replace(request, prefix=tuple(whole.ids[:16]), max_length=24), timeout=COMPILING)
    assert rest.ids == whole.ids[16:]
    told: list[int] = []

    def turn(run: int, events: list) -> None:
        if not told and any(hasattr(each, "raw_logp") for each in events):
            told.append(run)
            engine.set(run, "temperature", 0.0)

    watch(engine, replace(request, max_length=400), during=turn, timeout=COMPILING)
    asked = replace(request, prefix=tuple(whole.ids[:10]))
    engine.explain(Question(asked, whole.ids[10], model=whole.started.model))
    explained = next(each for each in settle(engine, Explained) if isinstance(each, Explained))
    assert explained.explanation.winner == whole.ids[10]


@two_gpus
def test_two_runs_in_turn_each_stay_on_their_device(
    open_engine: Callable[..., LocalEngine], folder: Path
) -> None:
    devices = dict(zip(ROLES, ("cuda:0", "cuda:1", "cuda:0", "cuda:1"), strict=True))
    engine = assigned(open_engine, folder, devices)
    requests = [Request("", name, ids=IDS, seed=3, max_length=40) for name in ("top_p", "contrastive")]
    own = [watch(engine, each, timeout=COMPILING) for each in requests]
    first, second, _ = watch_pair(engine, *requests, COMPILING)
    agree(first, own[0])
    agree(second, own[1])


@two_gpus
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8", "4bit"])
@pytest.mark.parametrize("strategy", ["greedy", "top_p", "beam", "contrastive_search", "mirostat"])
def test_the_second_gpu_alone_does_what_the_first_does(
    strategy: str, precision: Precision, open_engine: Callable[..., LocalEngine], folder: Path
) -> None:
    request = Request("", strategy, ids=IDS, seed=3, max_length=40)
    runs, held = [], []
    for device in ("cuda:0", "cuda:1"):
        engine = assigned(open_engine, folder, {"model": device}, precision)
        before = torch.cuda.memory_allocated(0)
        seen = watch(engine, request, timeout=COMPILING)
        held.append(torch.cuda.memory_allocated(0) - before)
        assert not seen.all(Failed), [each.message for each in seen.all(Failed)]
        runs.append(list(seen.finished.answer or seen.ids))
        engine.unload("model")
        settle(engine, Unloaded)
    assert runs[0] == runs[1]
    assert held[0] > 2**20
    assert held[1] < 2**20, "what the second GPU decodes takes memory of the first"


@two_gpus
@pytest.mark.parametrize("coding", ["awq", "awq g128", "gptq act-order", "gptq 8 bit"])
def test_packed_codes_decode_on_the_second_gpu(
    coding: str, open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    packed = make_coded(tmp_path, CODINGS[coding], layers=1)[0]
    runs = []
    for device in ("cuda:0", "cuda:1"):
        engine = open_engine()
        engine.assign("model", ModelSpec(str(packed), "auto", device))
        seen = watch(engine, Request("", "greedy", ids=IDS, max_length=24), timeout=COMPILING)
        assert seen.all(Loaded)[0].device == device
        runs.append(seen.ids)
    assert runs[0] == runs[1]


@two_gpus
def test_the_transformers_tier_decodes_on_the_second_gpu(
    open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    from tests.engine.models.architectures import make_tiny
    from tests.engine.random_checkpoints import save_tokenizer

    make_tiny(tmp_path, "bloom", vocab_size=TOKENS)
    save_tokenizer(tmp_path, chat_template=True)
    runs = []
    for device in ("cuda:0", "cuda:1"):
        engine = open_engine()
        engine.assign("model", ModelSpec(str(tmp_path), "float32", device))
        runs.append(watch(engine, Request("", "greedy", ids=IDS, max_length=24), timeout=COMPILING).ids)
    assert runs[0] == runs[1]


@two_gpus
def test_each_device_gets_its_memory_back(open_engine: Callable[..., LocalEngine], folder: Path) -> None:
    engine = assigned(open_engine, folder, on("cuda:0", "cuda:1"))
    request = Request("", "contrastive", ids=IDS, seed=3, max_length=24)
    rounds = []
    for _ in range(3):
        seen = watch(engine, request, timeout=COMPILING)
        weights = {each.device: each.weight_bytes for each in seen.all(Loaded)}
        assert set(weights) == {"cuda:0", "cuda:1"}
        for role, device in (("amateur", "cuda:1"), ("expert", "cuda:0")):
            engine.unload(role)
            gone = next(each for each in settle(engine, Unloaded) if isinstance(each, Unloaded))
            assert gone.before_bytes - gone.after_bytes >= 0.99 * weights[device]
        rounds.append([torch.cuda.memory_allocated(i) for i in (0, 1)])
    print("bytes allocated on both after each round:", rounds)
    assert rounds[2] == rounds[1]


@two_gpus
def test_the_gauge_shows_both_devices(open_engine: Callable[..., LocalEngine], folder: Path) -> None:
    from edge_tui.machine.nvml import Gpu
    from edge_tui.machine.telemetry import Telemetry

    for index in (0, 1):
        gpu = Gpu(f"cuda:{index}")
        known = str(torch.cuda.get_device_properties(index).uuid)
        assert gpu.uuid().removeprefix("GPU-") == known.removeprefix("GPU-")
        gpu.close()
    telemetry = Telemetry("cuda:0", interval=0.1)
    telemetry.watch("cuda:0", "cuda:1")
    telemetry.start()
    held = [torch.empty(2 << 30, dtype=torch.uint8, device=f"cuda:{i}") for i in (0, 1)]
    time.sleep(3.0)
    sample = telemetry.latest()
    telemetry.stop()
    assert sample is not None
    for gauge in (sample.gpu, *sample.others):
        assert gauge is not None
        assert gauge.used is not None
        assert gauge.used >= 2 << 30
    assert len(sample.others) == 1
    del held


@two_gpus
def test_the_gauge_follows_the_order_of_visible_devices() -> None:
    """In a process that sees both GPUs the other way round, NVML's first is CUDA's second."""
    code = (
        "import torch; from edge_tui.machine.nvml import Gpu\n"
        "for i in (0, 1):\n"
        "    assert Gpu(f'cuda:{i}').uuid().removeprefix('GPU-') == "
        "str(torch.cuda.get_device_properties(i).uuid).removeprefix('GPU-')\n"
    )
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "0,1").split(",")[:2]
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(reversed(seen))}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, timeout=300)


@pytest.mark.parametrize(("main", "other"), [("cuda:0", "cpu"), ("cpu", "cuda:0")])
@pytest.mark.parametrize("strategy", ["contrastive", "speculative"])
def test_a_gpu_and_a_cpu_say_what_one_gpu_says(
    main: str, other: str, strategy: str, open_engine: Callable[..., LocalEngine], folder: Path
) -> None:
    request = Request("", strategy, {"temperature": 0.9}, ids=IDS, seed=3, max_length=32)
    wanted = watch(assigned(open_engine, folder, on("cuda:0", "cuda:0")), request, timeout=COMPILING)
    for _ in range(2):
        seen = watch(assigned(open_engine, folder, on(main, other)), request, timeout=COMPILING)
        assert not seen.all(Failed), [each.message for each in seen.all(Failed)]
        agree(seen, wanted)
