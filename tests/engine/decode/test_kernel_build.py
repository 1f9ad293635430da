"""Kernels are listed without weights, compiled beforehand, and no failure of that costs more than time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.engine.decode import kernel_build
from edge_tui.engine.decode.kernel_build import KernelBuild, KernelBuilds
from edge_tui.engine.decode.param_table import Run
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.run import run_request
from edge_tui.engine.events import Event, Finished, FirstToken, Progress
from edge_tui.engine.models.manager import ModelManager
from edge_tui.engine.ops.triton import compiled_ahead
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import make_checkpoint, save_tokenizer

HOPPER = 9, 0
ENDS = {
    "killed": "import os, signal; print('all 9', flush=True); os.kill(os.getpid(), signal.SIGKILL)",
    "raises": "raise SystemExit(1)",
    "says nothing": "import time; time.sleep(600)",
    "finishes": "print('all 2', 'done 1', 'done 0', sep='\\n', flush=True); import time; time.sleep(600)",
}
IN_TWO_PARTS = """
import pathlib, time
print("load 1", "first 2", "done 2", "done 1", "done 0", "all 4", sep="\\n", flush=True)
while not pathlib.Path("{}").exists():
    time.sleep(0.01)
print("done 3", flush=True)
time.sleep(600)
"""


def wait(build: KernelBuild, patience: int = 10**9) -> list[tuple[int, int]]:
    """Waits for a build, or until it was asked that often whether to go on."""
    reports: list[tuple[int, int]] = []
    asked = iter(range(patience))
    try:
        build.wait(lambda done, total: reports.append((done, total)), lambda: next(asked, None) is None)
    finally:
        build.close()
    return reports


@pytest.mark.parametrize("end", ENDS)
def test_a_build_that_fails_is_waited_for_no_longer(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "workers_of_a_test.py").write_text(ENDS[end])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(kernel_build, "PATIENCE", 0.5 if end == "says nothing" else 60.0)
    stamp = tmp_path / "stamp"
    reports = wait(KernelBuild({"stamp": str(stamp)}, "workers_of_a_test"))
    assert reports[-1:] == ([(2, 2)] if end == "finishes" else [])
    assert stamp.exists() == (end in ("says nothing", "finishes")), "it is not waited for another time"


def test_the_first_token_waits_for_its_own_kernels_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, stamp = tmp_path / "gate", tmp_path / "stamp"
    (tmp_path / "workers_of_a_test.py").write_text(IN_TWO_PARTS.format(gate))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    build = KernelBuild({"stamp": str(stamp)}, "workers_of_a_test")
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        reports.append((done, total))

    try:
        assert build.wait(report, lambda: False, "first"), "kernels of later steps are to come"
        assert not stamp.exists()
        gate.touch()
        assert not build.wait(report, lambda: False)
    finally:
        build.close()
    assert reports[-1] == (4, 4)
    assert stamp.exists()


def test_loading_waits_for_its_own_kernels_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workers_of_a_test.py").write_text(IN_TWO_PARTS.format(tmp_path / "gate"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    asked: list[bool] = []
    kernels = KernelBuilds(KernelBuild({"stamp": str(tmp_path / "stamp")}, "workers_of_a_test"))
    try:
        with kernels.while_loading(lambda: bool(asked.append(False))):
            compiled_ahead.wait()
        waited = len(asked)
        compiled_ahead.wait()
        assert kernels.is_under_way, "kernels of the first token are to come"
    finally:
        kernels.close()
    assert 0 < waited == len(asked), "afterwards nobody waits"


def test_somebody_who_stops_a_run_waits_no_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workers_of_a_test.py").write_text(ENDS["says nothing"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    stamp = tmp_path / "stamp"
    assert wait(KernelBuild({"stamp": str(stamp)}, "workers_of_a_test"), patience=20) == []
    assert not stamp.exists()


def test_nothing_is_compiled_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert kernel_build.begin(Request(""), {"model": ModelSpec("demo/expert", device="cpu")}) is None


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = make_checkpoint(tmp_path / "m", dtype=torch.bfloat16, intermediate=128)
    save_tokenizer(folder)
    return folder


def test_the_first_token_is_shown_before_the_other_kernels_are_there(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"
    (tmp_path / "workers_of_a_test.py").write_text(IN_TWO_PARTS.format(gate))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    events: list[Event] = []

    def post(event: Event) -> None:
        events.append(event)
        if isinstance(event, FirstToken):
            gate.touch()

    spec = ModelSpec(str(checkpoint), device="cpu")
    manager = ModelManager(post, None, {"model": spec}, lambda model: None)
    request = Request("", "greedy", ids=(9,) * 20, max_length=6)
    kernels = KernelBuilds(KernelBuild({"stamp": str(tmp_path / "stamp")}, "workers_of_a_test"))
    try:
        for _ in run_request(Run(1, request), manager, PrefixCache(), post, lambda: False, kernels):
            pass
    finally:
        kernels.close()
    assert gate.exists()
    assert not kernels.is_under_way
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"
    assert [(event.done, event.total) for event in events if isinstance(event, Progress)][-1] == (4, 4)


class AnyGpu:
    """Stands for NVML and a GPU."""

    def close(self) -> None:
        """Closes nothing."""


def test_kernels_are_compiled_once_for_what_they_depend_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Any] = []
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kernel_build, "Gpu", AnyGpu)
    monkeypatch.setattr(kernel_build, "compute_capability", {"cuda:0": HOPPER}.get)
    monkeypatch.setattr(kernel_build, "resolve_device", lambda device: device)
    monkeypatch.setattr(kernel_build, "KernelBuild", lambda job: jobs.append(job) or job)

    def begins(strategy: str, device: str = "cuda:0", prompt: str = "", **values: float) -> bool:
        spec = ModelSpec("model", device=device)
        return kernel_build.begin(Request(prompt, strategy, values), {"model": spec}) is not None

    assert begins("top_p", prompt="Once upon")
    assert (jobs[0]["capability"], jobs[0]["prompt"]) == (HOPPER, "Once upon")
    assert jobs[0]["specs"]["model"]["device"] == "cuda:0"
    stamp = Path(jobs[0]["stamp"])
    assert stamp.parent == tmp_path
    assert begins("top_p"), "nothing has been compiled yet"
    stamp.touch()
    assert not begins("top_p", top_p=0.3, temperature=1.0)
    assert begins("top_p", temperature=0.7), "a link that is not neutral has a kernel"
    assert begins("beam")
    assert not begins("top_p", prompt="Twice", device="cuda:0")
    assert not begins("beam", device="cpu")


MODEL = {"_embed": 1, "project": 5, "attend_kernel": 1}
"""Kernels of a step of one row: QKV, output, gate and up, down, head.

Those that read a prompt's logits, which are cut to the vocabulary, may be others than those of later steps.
"""
RECORD = {"_scan": 1, "_pack": 1, "_post": 1, "_noise_kernel": 1}
"""Those of a record, and the one that a question about it launches."""
LISTED = {
    "greedy": MODEL | RECORD | {"greedy_kernel": 1},
    # The kernels of codes are compared with the weights at load: a product of one token, and one of eight.
    "greedy:4bit": MODEL | RECORD | {"greedy_kernel": 1, "_widen": 2, "project": 9},
    # A prompt of one token is read as a step is; one of a few has no kernels of its own.
    "greedy::a": MODEL | RECORD | {"greedy_kernel": 1},
    "greedy::abc": MODEL | RECORD | {"greedy_kernel": 1},
    # Records of the prompt's logits, of a step with proposals, and of one after they were given up.
    "speculative": {"_embed": 2, "project": 15, "attend_kernel": 3, "_read": 3, "_check": 2}
    | {"_scan": 3, "_pack": 3, "_post": 1, "_noise_kernel": 1},
    "top_p": MODEL | RECORD | {"prepare_kernel": 1, "_search": 3, "draw_kernel": 1},
    "beam": RECORD
    | {"_embed": 1, "project": 5, "attend_kernel": 1, "follow_kernel": 1, "move_kernel": 1}
    | {"scan_kernel": 2, "extend_kernel": 2, "decide_kernel": 1},
}
LATER = {"project", "attend_kernel", "_post"}
"""Kernels that the first token does not wait for, unless kernels read the prompt."""


def listed(checkpoint: Path, tmp_path: Path, *strategies: str) -> list[str]:
    """Lines of `listed_kernels`."""
    pytest.importorskip("triton")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.decode.listed_kernels", str(checkpoint), *strategies],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


@pytest.mark.timeout(180)
def test_norms_after_a_layer_and_each_rotary_have_kernels_that_are_listed(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", "gemma3_text", vocab_size=320, sliding_window_pattern=2)
    save_tokenizer(folder)
    line, *_ = listed(folder, tmp_path, "greedy")
    names = Counter("project" if "project" in each else each for each in line.split("|")[2].split())
    # In float32 the head's product is that of queries, keys and values.
    model = {"_embed": 1, "project": 4, "attend_kernel": 2, "norm_kernel": 1}
    assert names == model | {"_post": 1, "_noise_kernel": 1}


@pytest.mark.timeout(180)
def test_a_run_lists_its_kernels_without_weights(checkpoint: Path, tmp_path: Path) -> None:
    *lines, imported, found = listed(checkpoint, tmp_path, *LISTED)
    for line in lines:
        name, *names = ["project" if "project" in each else each for each in line.split()]
        loading, first, later = (part.split() for part in " ".join(names).split("|"))
        assert loading[0] == "_embed", "whether kernels run here is tried first"
        assert Counter(loading[1:] + first + later) == LISTED[name], name
        assert (len(loading) > 1) == (name == "greedy:4bit"), name
        waited_for = {"project", "attend_kernel"} if name == "greedy::a" else set()
        assert set(later) >= LATER - waited_for, name
        assert LATER & {*first} == waited_for, name
    assert imported == "imported", "that takes as long as half the list"
    assert found == "found True False", "Triton finds it for a tensor of the same alignment alone"


@pytest.mark.proof
@pytest.mark.timeout(600)
def test_all_kernels_of_a_run_are_compiled(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("triton")
    spec = asdict(ModelSpec(str(checkpoint), "auto", "cuda:0"))
    request = asdict(Request("", "greedy"))
    of_run = {
        name: request[name] for name in ("prompt", "ids", "strategy", "values", "mode", "samples", "chat")
    }
    job = of_run | {
        "capability": HOPPER,
        "specs": {"model": spec},
        "stamp": str(tmp_path / "cache" / "stamp"),
    }
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", kernel_build.WORKERS],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""},
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count = sum(LISTED["greedy"].values()) + 1
    assert {f"done {number}" for number in range(count)} | {"load 1", "first 4", f"all {count}"} == {
        *done.stdout.splitlines()
    }
    assert len([*(tmp_path / "cache").rglob("*.cubin")]) == count
    assert Path(job["stamp"]).exists()


LONG_ONES = "greedy", "speculative", "contrastive_search", "no_repeat_ngram", "beam"
"""Strategies that read the whole text, and some that do not."""
ALL = tuple(strategy.name for strategy in decoders.current().strategies())


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "strategies", [LONG_ONES, pytest.param(ALL, marks=pytest.mark.proof)], ids=["some", "all"]
)
def test_no_length_has_kernels_of_its_own(strategies: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("triton")
    folder = make_checkpoint(tmp_path / "m", dtype=torch.bfloat16, intermediate=128, context=4096)
    save_tokenizer(folder)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.decode.kernels_of_lengths", str(folder), *strategies],
        env={**environment, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = {name: differing for name, _, *differing in map(str.split, done.stdout.splitlines())}
    assert kernels == {name: [] for name in strategies}


@pytest.mark.gpu
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "strategy", ["greedy", "greedy:4bit", "top_p", "beam", "contrastive", "speculative", "ngram", "cfg"]
)
def test_a_run_compiles_nothing_itself(strategy: str, checkpoint: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.decode.compiled_kernels", str(checkpoint), strategy],
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count, total, *missed = done.stdout.split()
    assert int(count) == int(total) > 8
    assert missed == []
