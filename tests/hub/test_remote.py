"""Looking at the hub and downloading from it, over HTTP to a stand-in on loopback."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from gguf import GGMLQuantizationType as Type

from edge_tui.cli.main import main
from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models.memory_estimate import estimate
from edge_tui.hub import recent_models
from edge_tui.hub.listing import Listing, local_models
from edge_tui.hub.remote import Download, HubError, RemoteModel, inspect, repository_id
from edge_tui.util.logs import state_folder
from tests.engine.checkpoints.coded import Coding, declare, make_coded
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.random_checkpoints import make_checkpoint
from tests.hub_stand_in import COMMIT, TOKEN, Repository, StandIn, serving
from tests.waiting import until

NAME = "org/tiny"
KINDS = {"F16": Type.F16, "BF16": Type.BF16}


def same_kind(kind: Type) -> Any:
    return lambda _: kind


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


def worker(name: str) -> psutil.Process:
    """Finds the process of a download."""
    children = psutil.Process().children()
    return next(child for child in children if child.cmdline()[-2:] == ["pull", name])


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
        ("Qwen/Qwen3-4B-GGUF:Q4_K_M", "Qwen/Qwen3-4B-GGUF:Q4_K_M"),
        ("Qwen/Qwen3-4B-GGUF:../x", ""),
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


def test_a_model_of_group_codes_is_known_before_the_download(hub: StandIn, tmp_path: Path) -> None:
    folder, _ = make_coded(tmp_path / "coded", Coding(), layers=1)
    hub.repositories[NAME] = Repository(folder)
    seen, here = inspect(NAME), open_checkpoint(str(folder))
    assert (seen.listing.dtype, seen.listing.refusal) == ("AWQ 4 bit g32", "")
    assert (seen.listing.bytes, seen.listing.parameters) == (here.bytes, here.parameters)
    declare(folder, Coding().config | {"group_size": 64})
    assert "but AWQ 4 bit g64 wants" in inspect(NAME).refusal
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_what_cannot_run_is_known_before_the_download(hub: StandIn, tmp_path: Path) -> None:
    pickled, gguf, bert = (
        shelve(hub, tmp_path, name).folder for name in ("org/pickled", "org/gguf", "org/bert")
    )
    for folder in (pickled, gguf):
        for file in folder.glob("*.safetensors*"):
            file.unlink()
    (gguf / "pytorch_model.bin").rename(gguf / "model-Q4_0.gguf")
    (bert / "config.json").write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    with ThreadPoolExecutor() as pool:
        seen = list(pool.map(inspect, hub.repositories))
    assert all(model.checkpoint is None for model in seen)
    reasons = ("only pytorch_model.bin", "too few for a GGUF file", "an encoder")
    for model, words in zip(seen, reasons, strict=True):
        assert words in model.refusal


def test_pull_fetches_what_is_needed_and_nothing_else(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    steps = []
    pull = Download(NAME)
    pull.on_change = lambda: steps.append(pull.progress)
    end = pull.start().wait(60)
    assert end.phase == "done"
    kinds = ("*.json", "*.jinja", "model-*.safetensors")
    files = [file for kind in kinds for file in repository.folder.glob(kind)]
    assert end.done == end.total == sum(file.stat().st_size for file in files)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    fetched = [name for name in hub.fetched if "consolidated" not in name]
    assert {Path(name).suffix for name in fetched} == {".json", ".jinja", ".safetensors"}
    assert not {"README.md", "model.onnx", "pytorch_model.bin", "consolidated.safetensors"} & set(hub.fetched)
    assert hub.revisions == {COMMIT}, "main may be another one before the last file has come"
    found = listed()
    assert found is not None
    assert found.ready
    assert open_checkpoint(NAME).parameters == open_checkpoint(str(repository.folder)).parameters
    # Once more: nothing is left to fetch.
    hub.fetched.clear()
    assert Download(NAME).start().wait(60).phase == "done"
    assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_a_gguf_file_is_looked_at_and_fetched_by_its_tag(hub: StandIn, tmp_path: Path) -> None:
    twin = make_checkpoint(tmp_path / "twin", "llama")
    folder = tmp_path / "shelf"
    (folder / "F32").mkdir(parents=True)
    files = {tag: write_gguf(twin, folder / f"m-{tag}.gguf", same_kind(kind)) for tag, kind in KINDS.items()}
    files["F32"] = write_gguf(twin, folder / "F32" / "m-F32.gguf")
    (folder / "mmproj-F16.gguf").write_bytes(b"eyes")
    hub.repositories[NAME] = Repository(folder)
    assert failure() == (
        f"{NAME} holds 3 GGUF models, of which one is needed; name it: {NAME}:F32, {NAME}:BF16, {NAME}:F16."
    )
    assert "no GGUF model 'Q8_0'" in failure(f"{NAME}:Q8_0")
    for tag, file in files.items():
        seen, here = inspect(f"{NAME}:{tag}"), open_checkpoint(str(file))
        assert seen.checkpoint is not None
        assert seen.bytes == file.stat().st_size
        assert (seen.listing.dtype, seen.listing.parameters) == (f"GGUF {tag}", here.parameters)
        before, after = (estimate(c, "bfloat16", 0, 1, "cpu") for c in (seen.checkpoint, here))
        assert before.total == after.total
    hub.fetched.clear()
    assert Download(f"{NAME}:F16").start().wait(60).phase == "done"
    assert [name for name in hub.fetched if name.endswith(".gguf")] == ["m-F16.gguf"]
    assert [m.name for m in local_models()[2:]] == [NAME]
    for tag in ("BF16", "F32"):
        assert Download(f"{NAME}:{tag}").start().wait(60).phase == "done"
    assert [(m.name, m.ready) for m in local_models()[2:]] == [
        (f"{NAME}:{tag}", True) for tag in ("F32", "BF16", "F16")
    ]
    assert open_checkpoint(f"{NAME}:F32").parameters == open_checkpoint(str(files["F32"])).parameters


def test_a_killed_download_keeps_finished_files_and_is_never_ready(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    shards = sorted(repository.folder.glob("model-*.safetensors"), key=lambda file: file.stat().st_size)
    hub.stall_after = shards[0].stat().st_size
    big = repository.folder / shards[-1].name
    pull = Download(NAME).start()
    blobs = tmp_path / "nowhere"

    def one_is_here() -> bool:
        nonlocal blobs
        found = list(Path(os.environ["HF_HOME"]).glob(f"hub/models--*/snapshots/*/{shards[0].name}"))
        blobs = found[0].parents[2] / "blobs" if found else blobs
        return bool(found)

    until(one_is_here)
    worker(NAME).kill()
    end = pull.wait(60)
    assert end.phase == "failed"
    assert "start it again" in end.sentence
    half = listed()
    assert half is not None
    assert not half.ready
    assert "incomplete" in half.refusal
    # What was left half-written goes once it is old; what had come whole is not fetched again.
    for file in blobs.glob("*.incomplete"):
        os.utime(file, (1, 1))
    hub.stall_after = None
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
    hub.bytes_per_second = 2_000
    pull = Download(NAME).start()
    until(lambda: (pull.progress.rate or 0) > 0 and (pull.progress.eta or 0) > 0)
    assert pull.progress.left.endswith(" left")
    pull.cancel()
    assert pull.wait(30).phase == "cancelled", "to the end it would take minutes"
    assert not list(Path(os.environ["HF_HOME"]).glob("hub/models--*/blobs/*.incomplete"))
    half = listed()
    assert half is None or not half.ready


def test_a_download_given_up_before_the_config_is_listed_as_incomplete_and_goes_on(
    hub: StandIn, tmp_path: Path
) -> None:
    repository = shelve(hub, tmp_path)
    snapshot = Path(os.environ["HF_HOME"], "hub", f"models--{NAME.replace('/', '--')}", "snapshots", COMMIT)
    snapshot.mkdir(parents=True)
    shutil.copy(repository.folder / "tokenizer_config.json", snapshot)
    half = listed()
    assert half is not None
    assert half.resumable
    assert half.refusal == (
        f"{NAME} is incomplete in the local cache: config.json is missing; "
        f"fetch it with 'edge-tui models pull {NAME}'."
    )
    assert Download(NAME).start().wait(60).phase == "done"
    ready = listed()
    assert ready is not None
    assert ready.ready


def test_an_update_that_was_cut_short_leaves_the_old_one_in_use(hub: StandIn, tmp_path: Path) -> None:
    repository = shelve(hub, tmp_path)
    assert Download(NAME).start().wait(60).phase == "done"
    hub.repositories[NAME].commit = "f" * 40
    make_checkpoint(repository.folder, shards=3, chat_template=True, seed=1)
    hub.stall_after = 150_000
    pull = Download(NAME).start()
    until(lambda: pull.progress.done > 1000)
    pull.cancel()
    pull.wait(60)
    still = listed()
    assert still is not None
    assert still.ready


def test_each_refusal_is_a_sentence_of_its_own(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve(hub, tmp_path, "org/gated", gated=True)
    shelve(hub, tmp_path, "org/private", private=True)
    names = {"unknown, nobody": "org/missing", "broken": "org/broken"}
    pull = Download("org/gated").start()
    with ThreadPoolExecutor() as pool:
        said = dict(zip(names, pool.map(failure, names.values()), strict=True))
    said["gated"] = pull.wait(30).sentence
    assert "is gated: accept its terms" in said["gated"]
    assert "without a token" in said["unknown, nobody"]
    assert "answered 503" in said["broken"]
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with ThreadPoolExecutor() as pool:
        private, missing = pool.submit(inspect, "org/private"), pool.submit(failure, "org/missing")
    assert private.result().checkpoint is not None
    assert f"Bearer {TOKEN}" in hub.tokens
    said["404"] = missing.result()
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


def test_offline_is_said_without_a_request(
    hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelve(hub, tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubError, match="HF_HUB_OFFLINE forbids it"):
        inspect(NAME)
    assert not hub.tokens, "nobody was asked"
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


def test_the_command_says_what_it_would_take_then_fetches_then_lists(
    hub: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shelve(hub, tmp_path)
    assert main(["models", "look", NAME]) == 0
    said = capsys.readouterr().out
    for line in ("org/tiny: Qwen2ForCausalLM", "download ", "tier      flat", "bfloat16 ", "4bit "):
        assert line in said
    assert listed() is None
    assert main(["models", "pull", f"https://huggingface.co/{NAME}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "org/tiny is ready."
    assert main(["models", "list"]) == 0
    assert "org/tiny  " in capsys.readouterr().out
    assert main(["models", "pull", "org/missing"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["models", "pull", "nonsense"]) == 2


def test_the_last_used_come_first(home: Path) -> None:
    assert recent_models.names() == []
    for name in ("a/b", "c/d", "a/b"):
        recent_models.remember(name)
    assert recent_models.names() == ["a/b", "c/d"]
    (state_folder() / "recent-models.json").write_text("{")
    assert recent_models.names() == []
