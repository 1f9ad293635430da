"""Models that other programs keep, and GGUF files that are chosen by a tag."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from gguf import GGMLQuantizationType as Type

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint
from edge_tui.engine.checkpoints.gguf.choice import choose, split_tag, tag_of
from edge_tui.engine.checkpoints.stores import ollama_file, ollama_names
from edge_tui.engine.checkpoints.weight_files import CheckpointError, IncompleteCheckpoint
from edge_tui.hub.listing import local_models
from tests.config.test_user_files import nobody
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL, ADAPTER = (f"application/vnd.ollama.image.{kind}" for kind in ("model", "adapter"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, without what the environment says of stores."""
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "home"


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    """A small model in one file."""
    return write_gguf(
        make_checkpoint(tmp_path / "twin", "llama"), tmp_path / "m-F16.gguf", lambda _: Type.F16
    )


def pulled(store: Path, path: str, file: Path, **layers: str) -> Path:
    """Puts a file into Ollama's store as `ollama pull` does; returns its manifest."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    (store / "blobs").mkdir(parents=True, exist_ok=True)
    (store / "blobs" / f"sha256-{digest}").write_bytes(file.read_bytes())
    manifest = store / "manifests" / path
    manifest.parent.mkdir(parents=True, exist_ok=True)
    kinds: Mapping[str, str] = {MODEL: f"sha256:{digest}", **layers}
    stated = [{"mediaType": kind, "digest": digest, "size": 1} for kind, digest in kinds.items()]
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": stated}))
    return manifest


@pytest.mark.parametrize(
    ("path", "name", "short"),
    [
        ("registry.ollama.ai/library/llama3.2/3b", "ollama:llama3.2:3b", ""),
        ("registry.ollama.ai/library/qwen3/latest", "ollama:qwen3:latest", "ollama:qwen3"),
        ("registry.ollama.ai/mannix/phi3/q4", "ollama:mannix/phi3:q4", ""),
        ("hf.co/org/m-GGUF/Q4_K_M", "ollama:hf.co/org/m-GGUF:Q4_K_M", ""),
    ],
)
def test_ollamas_models_are_listed_and_opened(
    home: Path, gguf: Path, path: str, name: str, short: str
) -> None:
    pulled(home / ".ollama" / "models", path, gguf)
    assert [(m.name, m.origin, m.ready) for m in local_models()[2:]] == [(name, "ollama", True)]
    for given in filter(None, (name, short)):
        assert open_checkpoint(given).parameters == open_checkpoint(str(gguf)).parameters
        assert open_checkpoint(given).name == given


def test_another_folder_of_ollamas(home: Path, gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "elsewhere"))
    pulled(home / "elsewhere", "registry.ollama.ai/library/m/1b", gguf)
    assert list(ollama_names()) == ["ollama:m:1b"]


def test_what_ollama_has_damaged_is_said_in_a_sentence(home: Path, gguf: Path) -> None:
    store = home / ".ollama" / "models"
    with pytest.raises(CheckpointError, match="'ollama pull' fetches one"):
        ollama_file("ollama:none")
    root = "registry.ollama.ai/library"
    pulled(store, f"{root}/whole/1b", gguf)
    pulled(store, f"{root}/adapter/1b", gguf, **{ADAPTER: f"sha256:{'a' * 64}"})
    pulled(store, f"{root}/gone/1b", gguf, **{MODEL: f"sha256:{'b' * 64}"})
    pulled(store, f"{root}/away/1b", gguf, **{MODEL: "sha256:../../../../etc/passwd"})
    for word, text in (("broken", "{"), ("empty", "{}"), ("list", "[]"), ("null", '{"layers": null}')):
        pulled(store, f"{root}/{word}/1b", gguf).write_text(text)
    outside = pulled(store, f"{root}/outside/1b", gguf).rename(home / "outside.json")
    (store.parent / "outside").mkdir()
    outside.rename(store.parent / "outside" / "json")
    for name, kind, words in (
        ("../../outside:json", CheckpointError, "no model"),
        ("none:1b", CheckpointError, "it has ollama:adapter:1b"),
        ("whole", CheckpointError, "no model 'whole'"),
        ("adapter:1b", CheckpointError, "an adapter on another model"),
        ("gone:1b", IncompleteCheckpoint, "incomplete in Ollama's store"),
        ("away:1b", CheckpointError, "no file of weights"),
        ("broken:1b", IncompleteCheckpoint, "cannot be read"),
        ("empty:1b", IncompleteCheckpoint, "cannot be read"),
        ("list:1b", IncompleteCheckpoint, "cannot be read"),
        ("null:1b", IncompleteCheckpoint, "cannot be read"),
        ("../../../etc/passwd", CheckpointError, "no model"),
        ("a/b/c/d:e", CheckpointError, "no model"),
        ("", CheckpointError, "no model"),
    ):
        with pytest.raises(kind, match=words):
            ollama_file(f"ollama:{name}")
    refused = {model.name: model.ready for model in local_models()[2:]}
    assert refused.pop("ollama:whole:1b")
    assert len(refused) == 7
    assert not any(refused.values())


@pytest.mark.parametrize(
    "place", [".lmstudio/models/org/m-GGUF", ".cache/lm-studio/models/org/m-GGUF", ".cache/llama.cpp"]
)
def test_folders_of_lm_studio_and_llama_cpp_are_listed(home: Path, gguf: Path, place: str) -> None:
    folder = home / place
    folder.mkdir(parents=True)
    file = gguf.rename(folder / gguf.name)
    assert [(m.name, m.ready) for m in local_models()[2:]] == [(str(file), True)]


def test_a_folder_with_a_tag_is_the_file_of_that_tag(home: Path, gguf: Path) -> None:
    folder = home / "models"
    (folder / "Q8_0").mkdir(parents=True)
    for name in ("m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-f16.gguf", "Q8_0/m-Q8_0.gguf", "mmproj-f16.gguf"):
        (folder / name).write_bytes(gguf.read_bytes())
    for tag, file in (
        ("Q4_K_M", "m-Q4_K_M"),
        ("q4_k_s", "m-Q4_K_S"),
        ("F16", "m-f16"),
        ("Q8_0", "Q8_0/m-Q8_0"),
    ):
        assert open_checkpoint(f"{folder}:{tag}").path == folder / f"{file}.gguf"
    with pytest.raises(CheckpointError, match=r"no GGUF model 'Q4_K'; name one of these: .*:Q4_K_M"):
        open_checkpoint(f"{folder}:Q4_K")
    with pytest.raises(CheckpointError, match="holds 3 GGUF models"):
        open_checkpoint(str(folder))
    with pytest.raises(IncompleteCheckpoint, match="models pull org/none:Q4_K_M'"):
        open_checkpoint("org/none:Q4_K_M")


def test_folders_that_nobody_may_read(home: Path, gguf: Path) -> None:
    store = home / ".ollama" / "models"
    pulled(store, "registry.ollama.ai/library/m/1b", gguf)
    (home / ".lmstudio" / "models").mkdir(parents=True)
    shelf = home / "shelf"
    shelf.mkdir()
    with nobody(home if os.geteuid() == 0 else shelf):
        assert [model.origin for model in local_models()[2:]] in ([], ["cache"])
        with pytest.raises(CheckpointError, match="Ollama has no model"):
            ollama_file("ollama:m:1b")
        with pytest.raises(CheckpointError):
            open_checkpoint(f"{shelf}:Q8_0")


def test_tags() -> None:
    names = (
        "Meta-Llama-3-8B-Instruct.Q4_K_M.gguf",
        "x-IQ2_XXS.gguf",
        "a-BF16-00001-of-00002.gguf",
        "plain.gguf",
    )
    assert [tag_of(name) for name in names] == ["Q4_K_M", "IQ2_XXS", "BF16", "plain"]
    assert split_tag("org/m:Q8_0") == ("org/m", "Q8_0")
    assert split_tag("org/m") == ("org/m", "")
    parts = [f"q8/x-Q8_0-{part:05}-of-00002.gguf" for part in (1, 2)]
    assert choose("m", parts, "Q8_0") == choose("m", parts, "") == parts[0]
    twice = ["a-Q4_0.gguf", "b-Q4_0.gguf"]
    with pytest.raises(CheckpointError, match="m:a-Q4_0, m:b-Q4_0"):
        choose("m", twice, "Q4_0")
    assert choose("m", twice, "b-Q4_0") == twice[1]
    same = ["a/x-Q4_0.gguf", "b/x-Q4_0.gguf"]
    for tag in ("", "Q4_0", "Q8_0"):
        with pytest.raises(CheckpointError, match="m:a, m:b"):
            choose("m", same, tag)
    assert choose("m", same, "B") == same[1]
