"""The estimate against the measured peak on a CPU: loading, a long prompt and some tokens, at a true size.

`pytest -s -m proof tests/engine/models/test_memory_estimate_cpu.py` prints both.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType as Type

from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.random_checkpoints import make_checkpoint

STATUS = Path("/proc/self/statm")

pytestmark = [
    pytest.mark.proof,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not STATUS.exists(), reason="the memory of a process is told by Linux"),
]

PROCESS = """
import mmap, sys, threading, time
import torch
from edge_tui import decoders
from edge_tui.engine import events
from edge_tui.engine.models import memory_estimate
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.machine.devices import release_freed_memory
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models import flat, fused_cpu
from edge_tui.engine.port import ModelSpec, Request

def held():
    # Without what lies in files. Read at once, where smaps_rollup counts for as long as some peaks last.
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * mmap.PAGESIZE

def wait(kind):
    while True:
        for event in engine.poll():
            assert not isinstance(event, events.Failed | events.Died), event
            if isinstance(event, kind):
                return
        time.sleep(0.01)

def watch():
    global peak
    while True:
        peak = max(peak, held() - before)
        time.sleep(0.001)

path, precision = sys.argv[1:]
decoders.strategies()
torch.ones(64, 64) @ torch.ones(64, 64)
engine = LocalEngine({"model": ModelSpec(path, precision, "cpu", 1024)})
time.sleep(1)
release_freed_memory()
before, peak = held(), 0
threading.Thread(target=watch, daemon=True).start()
engine.load("model")
wait(events.Loaded)
ids = tuple(i % 200 + 10 for i in range(900))
engine.submit(Request(prompt="", ids=ids, strategy="greedy", max_length=20))
wait(events.Finished)
print(memory_estimate.estimate(open_checkpoint(path), precision, 1024, 1, "cpu").total, peak, flush=True)
engine.close(5)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2-0.5B's shapes."""
    return make_checkpoint(
        tmp_path_factory.mktemp("size"), "qwen2", vocab=151_936, layers=24, hidden=896, heads=14, kv_heads=2,
        intermediate=4864, context=4096, tie=True, dtype=torch.bfloat16, std=0.02,
    )  # fmt: skip


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TinyLlama's widths."""
    return make_checkpoint(
        tmp_path_factory.mktemp("gguf"), "llama", vocab=32_000, layers=6, hidden=2048, heads=32, kv_heads=4,
        intermediate=5632, context=4096, std=0.02,
    )  # fmt: skip


@pytest.fixture(scope="module")
def gguf(twin: Path) -> Path:
    return write_gguf(twin, twin / "m.gguf", lambda _: Type.Q8_0)


@pytest.fixture(scope="module")
def codes(twin: Path) -> Path:
    return write_gguf(twin, twin / "m4.gguf", lambda _: Type.Q4_1)


@pytest.mark.parametrize(
    ("model", "precision"),
    [*product(("folder", "gguf"), ("float32", "bfloat16", "int8", "4bit")), ("codes", "auto")],
)
def test_the_estimate_is_within_five_percent_of_the_peak(
    model: str, precision: str, request: pytest.FixtureRequest
) -> None:
    order = [sys.executable, "-c", PROCESS, str(request.getfixturevalue(model)), precision]
    done = subprocess.run(order, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    expected, peak = map(int, done.stdout.split())
    print(f"{model} {precision}: estimate {expected >> 20} MB, peak {peak >> 20} MB, {expected / peak:.3f}")
    assert expected == pytest.approx(peak, rel=0.05)
