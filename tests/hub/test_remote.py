"""Looking at the hub and downloading from it, over HTTP to a stand-in on loopback."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models.memory_estimate import estimate
from edge_tui.hub import Listing, local_models, recent_models
from edge_tui.hub.remote import Download, HubError, RemoteModel, inspect, repository_id
from tests.engine.random_checkpoints import make_checkpoint
from tests.hub_stand_in import TOKEN, Repository, StandIn, serving

NAME = "org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    with serving() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        yield stand_in


def shelve(hub: StandIn, tmp_path: Path, name: str = NAME, **changes: Any) -> Repository:
    folder = make_checkpoint(tmp_path / name.replace("/", "-"), shards=3, chat_template=True)
    for extra in ("README.md", "model.onnx", "pytorch_model.bin", "consolidated.safetensors"):
        (folder / extra).write_bytes(b"not wanted")
    hub.repositories[name] = Repository(folder, **changes)
    return hub.repositories[name]


def listed(name: str = NAME) -> Listing | None:
    return next((model for model in local_models() if model.name == name), None)


def until(look: Callable[[], Any], seconds: float = 20.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError("it never came true")


def failure(name: str = NAME) -> str:
    with pytest.raises(HubError) as raised:
        inspect(name)
    return str(raised.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("  https://huggingface.co/Qwen/Qwen2.5-0.5B/tree/main ", "Qwen/Qwen2.5-0.5B"),
        ("hf.co/Qwen/Qwen3-4B", "Qwen/Qwen3-4B"),
        ("qwen", ""),
        ("../etc/passwd", ""),
        ("a/..", ""),
        ("demo/expert", ""),
        ("org/na me", ""),
        ("org/\x1b[31m", ""),
    ],
)
def test_what_is_a_repository(text: str, name: str) -> None:
    assert repository_id(text) == name


def test_size_architecture_tier_and_estimate_are_known_before_the_download(
    hub: StandIn, tmp_path: Path
) -> None:
    repository = shelve(hub, tmp_path)
    seen: RemoteModel = inspect(NAME)
    assert seen.checkpoint is not None
    here = open_checkpoint(str(repository.folder))
    assert (seen.listing.architecture, seen.listing.tier) == ("Qwen2ForCausalLM", "flat")
    assert (seen.listing.bytes, seen.listing.parameters) == (here.bytes, here.parameters)
    assert (seen.listing.chat, seen.listing.context, seen.listing.dtype) == (True, 256, "float32")
    for precision in ("auto", "bfloat16", "int8", "4bit"):
        before, after = (estimate(c, precision, 0, 1, "cpu") for c in (seen.checkpoint, here))
        assert (before.weights, before.total) == (after.weights, after.total)
    assert not any(name.endswith(".safetensors") for name in hub.fetched)
    assert listed() is None


def test_what_cannot_run_is_known_before_the_download(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    for file in repository.folder.glob("*.safetensors*"):
        file.unlink()
    seen = inspect(NAME)
    assert seen.checkpoint is None
    assert "only pytorch_model.bin" in seen.refusal
    (repository.folder / "pytorch_model.bin").rename(repository.folder / "model.gguf")
    assert "GGUF" in inspect(NAME).refusal
    (repository.folder / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    assert "an encoder" in inspect(NAME).refusal


def test_pull_fetches_what_is_needed_and_nothing_else(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    steps = []
    pull = Download(NAME)
    pull.on_change = lambda: steps.append(pull.progress)
    end = pull.start().wait(60)
    assert end.phase == "done"
    assert end.done == end.total == inspect(NAME).bytes
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    fetched = [name for name in hub.fetched if "consolidated" not in name]
    assert {Path(name).suffix for name in fetched} == {".json", ".jinja", ".safetensors"}
    assert not {"README.md", "model.onnx", "pytorch_model.bin", "consolidated.safetensors"} & set(hub.fetched)
    found = listed()
    assert found is not None
    assert found.ready
    assert open_checkpoint(NAME).parameters == open_checkpoint(str(repository.folder)).parameters
    # Once more: nothing is left to fetch.
    hub.fetched.clear()
    assert Download(NAME).start().wait(60).phase == "done"
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_a_killed_download_keeps_finished_files_and_is_never_ready(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    shards = sorted(repository.folder.glob("model-*.safetensors"), key=lambda file: file.stat().st_size)
    hub.bytes_per_second = shards[0].stat().st_size * 2
    big = repository.folder / shards[-1].name
    pull = Download(NAME).start()
    blobs = tmp_path / "nowhere"

    def one_is_here() -> bool:
        nonlocal blobs
        found = list(Path(os.environ["HF_HOME"]).glob(f"hub/models--*/snapshots/*/{shards[0].name}"))
        blobs = found[0].parents[2] / "blobs" if found else blobs
        return bool(found)

    until(one_is_here)
    assert pull._process is not None
    pull._process.kill()
    end = pull.wait(10)
    assert end.phase == "failed"
    assert "start it again" in end.sentence
    half = listed()
    assert half is not None
    assert not half.ready
    assert "incomplete" in half.refusal
    # What was left half-written goes once it is old; what had come whole is not fetched again.
    for file in blobs.glob("*.incomplete"):
        os.utime(file, (1, 1))
    hub.bytes_per_second = None
    hub.fetched.clear()
    assert Download(NAME).start().wait(60).phase == "done"
    assert shards[0].name not in hub.fetched
    assert big.name in hub.fetched
    assert not list(blobs.glob("*.incomplete"))
    ready = listed()
    assert ready is not None
    assert ready.ready


def test_cancel_ends_at_once_and_rate_and_eta_are_told(hub: StandIn, tmp_path: Path) -> None:
    shelve(hub, tmp_path)
    hub.bytes_per_second = 40_000
    pull = Download(NAME).start()
    # Three files at a time.
    until(lambda: 30_000 < (pull.progress.rate or 0) < 400_000 and 0 < (pull.progress.eta or 0) < 60)
    began = time.monotonic()
    pull.cancel()
    assert pull.wait(10).phase == "cancelled"
    assert time.monotonic() - began < 1.5
    assert not list(Path(os.environ["HF_HOME"]).glob("hub/models--*/blobs/*.incomplete"))
    half = listed()
    assert half is None or not half.ready


def test_an_update_that_was_cut_short_leaves_the_old_one_in_use(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    assert Download(NAME).start().wait(60).phase == "done"
    hub.repositories[NAME].commit = "f" * 40
    make_checkpoint(repository.folder, shards=3, chat_template=True, seed=1)
    hub.bytes_per_second = 40_000
    pull = Download(NAME).start()
    until(lambda: pull.progress.done > 1000 and any("safetensors" in name for name in hub.fetched))
    pull.cancel()
    pull.wait(10)
    still = listed()
    assert still is not None
    assert still.ready


def test_each_refusal_is_a_sentence_of_its_own(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve(hub, tmp_path, "org/gated", gated=True)
    shelve(hub, tmp_path, "org/private", private=True)
    said = {
        "gated": failure("org/gated"),
        "unknown, nobody": failure("org/missing"),
        "broken": failure("org/broken"),
    }
    assert Download("org/gated").start().wait(30).sentence == said["gated"]
    assert "is gated: accept its terms" in said["gated"]
    assert "without a token" in said["unknown, nobody"]
    assert "answered 503" in said["broken"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert inspect("org/private").checkpoint is not None
    assert f"Bearer {TOKEN}" in hub.tokens
    said["404"] = failure("org/missing")
    assert said["404"].startswith("There is no org/missing")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongAndSecret99")
    said["401"] = failure("org/private")
    assert "refuses the token" in said["401"]
    for sentence in said.values():
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert "hf_" not in sentence
        assert "/api/" not in sentence
    assert len(set(said.values())) == len(said)


def test_offline_is_said_quickly(hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelve(hub, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    began = time.monotonic()
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids it"):
        inspect(NAME)
    assert time.monotonic() - began < 5.0
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HubError, match=r"127\.0\.0\.1:1 cannot be reached"):
        inspect(NAME)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    shard = sorted(repository.folder.glob("model-*.safetensors"))[0]
    repository.sizes[shard.name] = 10**16
    end = Download(NAME).start().wait(30)
    assert "GB are free" in end.sentence
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


@pytest.mark.skipif(sys.platform == "win32", reason="needs limits on file sizes")
def test_a_disk_that_fills_up_is_a_sentence_and_leaves_nothing_half(hub: StandIn, tmp_path: Path) -> None:
    """No disk can be filled here, but the kernel ends a write that outgrows a limit the same way."""
    repository = shelve(hub, tmp_path)
    largest = max(file.stat().st_size for file in repository.folder.glob("model-*.safetensors"))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, largest // 2))

    done = subprocess.run(
        [sys.executable, "-m", "edge_tui.hub.download_worker", "pull", NAME],
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=limit,
    )
    assert '"code": "disk_full"' in done.stdout.splitlines()[-1], done.stdout + done.stderr
    assert not list(Path(os.environ["HF_HOME"]).glob("hub/models--*/blobs/*.incomplete"))
    half = listed()
    assert half is None or not half.ready


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_tui", *words], capture_output=True, text=True, timeout=60
    )


def test_the_command_says_what_it_would_take_then_fetches_then_lists(hub: StandIn, tmp_path: Path) -> None:
    shelve(hub, tmp_path)
    seen = command("models", "look", NAME)
    assert seen.returncode == 0
    for line in ("org/tiny: Qwen2ForCausalLM", "download ", "tier      flat", "bfloat16 ", "4bit "):
        assert line in seen.stdout
    assert listed() is None
    done = command("models", "pull", f"https://huggingface.co/{NAME}")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "org/tiny is ready.")
    assert "org/tiny  " in command("models", "list").stdout
    assert command("models", "pull", "org/missing").stderr.count("\n") == 1
    assert command("models", "pull", "nonsense").returncode == 2


def test_the_last_used_come_first(home: Path) -> None:
    assert recent_models.names() == []
    for name in ("a/b", "c/d", "a/b"):
        recent_models.remember(name)
    assert recent_models.names() == ["a/b", "c/d"]
    recent_models._file().write_text("{")
    assert recent_models.names() == []
