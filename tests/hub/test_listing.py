from __future__ import annotations

import shutil
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from gguf import GGMLQuantizationType as Type

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.models import loader, memory_estimate
from edge_tui.engine.port import ModelSpec
from edge_tui.hub.download_worker import files_to_fetch
from edge_tui.hub.listing import Listing, local_models
from edge_tui.hub.precision_options import estimate_model
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def snapshot(cache: Path, name: str, shards: int = 1) -> Path:
    repository = cache / f"models--{name.replace('/', '--')}"
    commit = "a" * 40
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    return make_checkpoint(repository / "snapshots" / commit, shards=shards, chat_template=True)


def listed(models: list[Listing], name: str) -> Listing:
    (found,) = [model for model in models if model.name == name]
    return found


def test_the_demo_pair_comes_first(cache: Path) -> None:
    models = local_models()
    assert [model.name for model in models] == ["demo/expert", "demo/amateur"]
    assert all(model.ready and model.tier == "flat" and model.bytes for model in models)


def test_cached_repositories_are_listed_with_their_facts(cache: Path) -> None:
    snapshot(cache, "org/whole")
    found = listed(local_models(), "org/whole")
    assert found.ready
    assert (found.origin, found.architecture, found.tier) == ("cache", "Qwen2ForCausalLM", "flat")
    assert found.bytes == 4 * found.parameters
    assert (found.context, found.dtype, found.chat) == (256, "float32", True)


def test_half_downloaded_is_never_ready(cache: Path) -> None:
    shards = snapshot(cache, "org/half", shards=3)
    sorted(shards.glob("*.safetensors"))[-1].unlink()
    nothing = cache / "models--org--nothing" / "blobs"
    nothing.mkdir(parents=True)
    (nothing / "0123.incomplete").write_bytes(b"x")
    cut = snapshot(cache, "org/cut")
    file = cut / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    models = local_models()
    for name in ("org/half", "org/nothing", "org/cut"):
        assert not listed(models, name).ready
        assert listed(models, name).resumable
    assert "1 of 3" in listed(models, "org/half").refusal
    assert "truncated" in listed(models, "org/cut").refusal


def test_a_download_given_up_after_any_file_can_go_on(cache: Path, tmp_path: Path) -> None:
    whole = make_checkpoint(tmp_path / "whole", shards=3, chat_template=True)
    sizes = {file.name: file.stat().st_size for file in whole.iterdir()}
    order = files_to_fetch(sizes, sorted(name for name in sizes if name.endswith(".safetensors")))
    assert order.index("config.json") > 0, "a smaller file comes first"
    snapshot = cache / "models--org--model" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name in order:
        found = listed(local_models(), "org/model")
        assert (found.ready, found.resumable) == (False, True), f"{name} is to come: {found.refusal}"
        shutil.copy(whole / name, snapshot / name)
    assert listed(local_models(), "org/model").ready


def test_a_download_cannot_mend_what_is_of_another_kind(cache: Path) -> None:
    config = snapshot(cache, "org/autocomplete") / "config.json"
    config.write_text('{"model_type": "bert", "architectures": ["BertModel"]}')
    found = listed(local_models(), "org/autocomplete")
    assert (found.ready, found.resumable) == (False, False)


def test_what_is_no_model_does_not_show(cache: Path) -> None:
    (cache / "datasets--org--data").mkdir(parents=True)
    (cache / ".locks").mkdir()
    (cache / "version.txt").write_text("1")
    assert len(local_models()) == 2


def test_folders_are_searched_two_levels_deep(cache: Path, tmp_path: Path) -> None:
    itself = make_checkpoint(tmp_path / "one")
    nested = make_checkpoint(tmp_path / "models" / "org" / "two")
    make_checkpoint(tmp_path / "models" / "a" / "b" / "deep")
    models = local_models([itself, str(tmp_path / "models"), tmp_path / "missing", itself])
    assert [model.name for model in models[2:]] == [str(itself), str(nested)]
    assert all(model.origin == "folder" for model in models[2:])


def test_gguf_files_are_listed_with_their_format(cache: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    twin = make_checkpoint(folder / "twin", "llama", hidden=64, intermediate=96)
    one = write_gguf(twin, folder / "a.gguf", lambda name: Type.Q8_0 if "ffn" in name else Type.F16)
    write_gguf(twin, folder / "b.gguf", split_max_tensors=12)
    (folder / "bad.gguf").write_bytes(one.read_bytes()[:-9])
    twins, whole, split, bad = local_models([folder])[2:]
    assert (twins.name, whole.name) == (str(twin), str(one))
    assert split.name == str(folder / "b-00001-of-00002.gguf")
    assert (whole.dtype, split.dtype) == ("GGUF F16", "GGUF F32")
    assert (whole.ready, whole.tier, whole.architecture) == (True, "flat", "LlamaForCausalLM")
    assert whole.bytes < one.stat().st_size < split.bytes
    assert whole.parameters == split.parameters == twins.parameters
    assert "truncated" in bad.refusal
    assert not bad.resumable


def test_each_gguf_file_of_a_cached_repository_is_listed(cache: Path, tmp_path: Path) -> None:
    folder = snapshot(cache, "org/model-GGUF")
    twin = make_checkpoint(tmp_path / "twin", "llama")
    for file in folder.iterdir():
        file.unlink()
    one = write_gguf(twin, folder / "m-F32.gguf")
    assert [(m.name, m.ready) for m in local_models()[2:]] == [("org/model-GGUF", True)]
    two = write_gguf(twin, folder / "m-F16.gguf", lambda _: Type.F16)
    tagged = ("org/model-GGUF:F16", "org/model-GGUF:F32")
    assert [(m.name, m.ready) for m in local_models()[2:]] == [(name, True) for name in tagged]
    assert [open_checkpoint(name).path for name in tagged] == [two, one]


def test_other_architectures_go_to_the_other_tier(cache: Path, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "one")
    config = folder / "config.json"
    config.write_text(
        config.read_text().replace("Qwen2ForCausalLM", "BloomForCausalLM").replace("qwen2", "bloom")
    )
    assert local_models([folder])[-1].tier == "transformers"


def test_a_file_is_opened_once_to_be_listed(cache: Path) -> None:
    """A full cache is listed while one looks at it: with every file read again and again it would not be."""
    for n in range(3):
        snapshot(cache, f"org/m{n}", shards=2)
    opened: list[str] | None = []

    def note(event: str, given: tuple[object, ...]) -> None:
        if opened is not None and event == "open":
            opened.append(str(given[0]))

    sys.addaudithook(note)  # for as long as the process lives
    models = local_models()
    files, opened = opened, None
    assert sum(model.ready for model in models) == 5
    times = Counter(file for file in files if file.startswith(str(cache)) and "/snapshots/" in file)
    assert sum(file.endswith("config.json") for file in times) >= 3
    assert set(times.values()) == {1}


def test_the_estimate_reserves_what_a_load_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(str(make_checkpoint(tmp_path / "long", context=100_000_000)))
    for module in (memory_estimate, loader):
        monkeypatch.setattr(module, "free_memory", lambda _device: 200 * 2**20)
    seen = estimate_model(checkpoint, "cpu", 0)
    assert not {"auto", "float32"} & set(seen.reasons), "it can be loaded with less"
    loaded = loader.load(ModelSpec(checkpoint.name, "float32", "cpu"))
    assert seen.contexts["float32"] == loaded.context < 1_000_000
    asked = estimate_model(checkpoint, "cpu", 100_000_000)
    assert "100,000,000 positions" in asked.reasons["float32"]


def test_the_estimate_of_a_pair(tmp_path: Path) -> None:
    checkpoint = open_checkpoint("demo/expert")
    seen = estimate_model(checkpoint, "cpu", 1024, 4, 64, ModelSpec("demo/amateur", context=1024))
    one = memory_estimate.estimate(checkpoint, "float32", 1024, 4, "cpu", 64)
    other = memory_estimate.estimate(open_checkpoint("demo/amateur"), "auto", 1024, 4, "cpu", 64)
    (together,) = seen.together["float32"]
    assert (together.weights, together.kv) == (one.weights + other.weights, one.kv + other.kv)
    assert not estimate_model(checkpoint, "cpu", 1024, other=ModelSpec(str(tmp_path / "none"))).together


@pytest.mark.parametrize("rows", [1, 4])
def test_the_estimate_counts_hidden_states_that_a_strategy_keeps(rows: int) -> None:
    checkpoint = open_checkpoint("demo/expert")
    kept, plain = (estimate_model(checkpoint, "cpu", 1024, rows, 64, past=past) for past in (True, False))
    assert kept.estimates["float32"].kv > plain.estimates["float32"].kv


def test_listing_loads_no_torch() -> None:
    code = "import sys, edge_tui.hub.listing as it; it.local_models(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
