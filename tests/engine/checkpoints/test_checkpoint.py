from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from edge_tui.engine.checkpoints.checkpoint import (
    CheckpointError,
    open_checkpoint,
    pair_refusal,
)
from edge_tui.engine.checkpoints.locate import cache_root
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model", shards=2, chat_template=True)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    root = tmp_path / "hf" / "hub"
    root.mkdir(parents=True)
    return root


def cached(cache: Path, folder: Path, name: str = "org/model", revision: str = COMMIT) -> Path:
    """Lays a checkpoint into the cache as downloads do: blobs, a snapshot of links, a reference."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    for path in (snapshot, repository / "blobs", repository / "refs"):
        path.mkdir(parents=True)
    (repository / "refs" / "main").write_text(revision)
    for n, file in enumerate(sorted(folder.iterdir())):
        file.rename(repository / "blobs" / str(n))
        (snapshot / file.name).symlink_to(f"../../blobs/{n}")
    return snapshot


def edit(file: Path, **values: Any) -> None:
    stored = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({k: v for k, v in (stored | values).items() if v is not ...}))


def refusal(name: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(name))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# -------------------------------------------------------------------------------------------- what it says


def test_a_folder_is_read_without_its_tensors(folder: Path) -> None:
    checkpoint = open_checkpoint(str(folder))
    files = list(folder.glob("*.safetensors"))
    assert len(files) == 2
    from safetensors import safe_open

    tensors = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            tensors |= {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    assert {n: t.shape for n, t in checkpoint.tensors.items()} == {
        n: tuple(t.shape) for n, t in tensors.items()
    }
    assert checkpoint.parameters == sum(t.numel() for t in tensors.values())
    assert checkpoint.bytes == sum(t.numel() * t.element_size() for t in tensors.values())
    assert checkpoint.architecture == "Qwen2ForCausalLM"
    assert (checkpoint.layers, checkpoint.context, checkpoint.vocab) == (2, 256, 320)
    assert checkpoint.dtype == "float32"
    assert checkpoint.chat_template
    assert "im_start" in checkpoint.chat_template


@pytest.mark.parametrize("layout", ["new", "old"])
def test_both_layouts_say_the_same(tmp_path: Path, layout: str) -> None:
    made = make_checkpoint(tmp_path / "m", layout=layout, chat_template=True, dtype=torch.bfloat16)
    checkpoint = open_checkpoint(str(made))
    assert checkpoint.dtype == "bfloat16"
    assert checkpoint.chat_template
    assert checkpoint.eos_ids


def test_demo_names_lead_into_the_package() -> None:
    for which in ("expert", "amateur"):
        assert open_checkpoint(f"demo/{which}").path.parts[-2:] == ("demo", which)


def test_eos_is_the_union_of_its_sources(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[7, 2])
    edit(folder / "config.json", eos_token_id=5)
    edit(folder / "tokenizer_config.json", eos_token="<|im_start|>")
    assert open_checkpoint(str(folder)).eos_ids == (7, 2, 5, 1)
    edit(folder / "tokenizer_config.json", eos_token={"content": "<|im_end|>", "lstrip": False})
    edit(folder / "config.json", eos_token_id=...)
    (folder / "generation_config.json").unlink()
    assert open_checkpoint(str(folder)).eos_ids == (2,)


def test_eos_of_special_tokens_map_counts(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", eos_token=...)
    edit(folder / "special_tokens_map.json", eos_token="<|im_end|>")
    assert 2 in open_checkpoint(str(folder)).eos_ids


def test_a_chat_template_of_megabytes_is_not_read(folder: Path) -> None:
    with (folder / "chat_template.jinja").open("wb") as file:
        file.truncate(4_000_000)
    assert len(open_checkpoint(str(folder)).chat_template or "") == 4_000_000
    with (folder / "chat_template.jinja").open("wb") as file:
        file.truncate(50_000_000_000)  # a hole, which takes no room on the disk
    with pytest.raises(CheckpointError, match=r"chat_template.jinja of .* has more than 4,000,000 bytes"):
        open_checkpoint(str(folder))


def test_named_chat_templates_take_the_default(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    edit(folder / "tokenizer_config.json", chat_template=named)
    assert open_checkpoint(str(folder)).chat_template == "D"
    (folder / "chat_template.json").write_text('{"chat_template": "J"}')
    assert open_checkpoint(str(folder)).chat_template == "J"


def test_importing_it_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, edge_tui.hub, edge_tui.engine.models.loader\n"
        "import edge_tui.engine.text.tokenizer, edge_tui.engine.text.chat_template\n"
        "from edge_tui.hub.listing import local_models; local_models()\n"
        "sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ----------------------------------------------------------------------------------------------- the cache


def test_a_cached_repository_is_found_by_its_id(cache: Path, folder: Path) -> None:
    snapshot = cached(cache, folder)
    checkpoint = open_checkpoint("org/model")
    assert (checkpoint.name, checkpoint.path) == ("org/model", snapshot)


def test_without_a_reference_the_newest_snapshot_counts(cache: Path, folder: Path) -> None:
    snapshot = cached(cache, folder)
    old = snapshot.with_name("f" * 40)
    old.mkdir()
    os.utime(old, (1, 1))
    for reference in ("../../../../etc", "0" * 40, ""):
        (cache / "models--org--model" / "refs" / "main").write_text(reference)
        assert open_checkpoint("org/model").path == snapshot


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/b"}, "/b"),
        ({"HF_HOME": "/c"}, "/c/hub"),
        ({"XDG_CACHE_HOME": "/d"}, "/d/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, env: Mapping[str, str], expected: str
) -> None:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    assert str(cache_root()) == expected


def test_offline_and_not_cached_names_the_variable(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "models pull org/none" in refusal("org/none")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal("org/none")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/no/such",
        "~/no-such",
        "../x",
        "a/../../b",
        "org/..",
        "demo/../engine",
        "demo/none",
        "a/b/c",
        "x\0y",
        "-x",
    ],
)
def test_names_never_lead_outside(cache: Path, name: str) -> None:
    assert refusal(name)


def test_an_index_cannot_name_files_elsewhere(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "stolen.safetensors").write_bytes(next(folder.glob("*.safetensors")).read_bytes())
    edit(folder / "model.safetensors.index.json", weight_map={"a": "../stolen.safetensors"})
    assert "incomplete" in refusal(folder)


# ---------------------------------------------------------------------------------------------- refusals


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "config.json" in refusal(folder)


@pytest.mark.parametrize("text", ["{", "[]", "\x80", "[" * 100_000])
def test_a_broken_config_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in refusal(folder)


def test_a_missing_shard_is_named_and_counted(folder: Path) -> None:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(folder)
    assert "1 of 2" in refusal(folder)


def test_a_dangling_link_counts_as_missing(cache: Path, folder: Path) -> None:
    snapshot = cached(cache, folder)
    shard = sorted(snapshot.glob("*.safetensors"))[0]
    shard.resolve().unlink()
    assert shard.name in refusal("org/model")


@pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
def test_a_truncated_shard_is_named(folder: Path, keep: int) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:keep])
    assert shard.name in refusal(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b'{"a": 1}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 8]}}',
        b"\xff\xff",
    ],
)
def test_a_lying_header_is_refused(folder: Path, header: bytes) -> None:
    shard = sorted(folder.glob("*.safetensors"))[0]
    shard.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    assert shard.name in refusal(folder)


def test_pickles_are_refused(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    assert "finish its download" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "pytorch_model.bin" in refusal(folder)


def test_adapters_and_gguf_are_told_apart(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "q4.gguf").write_bytes(b"x")
    assert "GGUF" in refusal(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert "LoRA" in refusal(folder)


@pytest.mark.parametrize("method", ["fp8", "mxfp4", "compressed-tensors", "hqq", "exl2"])
def test_foreign_quantisation_is_refused(folder: Path, method: str) -> None:
    edit(folder / "config.json", quantization_config={"quant_method": method, "bits": 4})
    assert method.upper() in refusal(folder)


def test_mlx_quantisation_is_refused(folder: Path) -> None:
    edit(folder / "config.json", quantization={"group_size": 64, "bits": 4})
    assert "MLX" in refusal(folder)


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "4bit"),
        ({"quant_method": "bitsandbytes", "_load_in_8bit": True}, "int8"),
        ({"load_in_8bit": True}, "int8"),
    ],
)
def test_bitsandbytes_quantisation_is_accepted(folder: Path, stored: Mapping[str, Any], kind: str) -> None:
    edit(folder / "config.json", quantization_config=stored)
    assert open_checkpoint(str(folder)).quantization == kind


def test_remote_code_is_refused_only_where_it_is_needed(folder: Path) -> None:
    auto_map = {"AutoModelForCausalLM": "modeling_evil.EvilForCausalLM"}
    edit(folder / "config.json", auto_map=auto_map)
    assert open_checkpoint(str(folder)).architecture == "Qwen2ForCausalLM"
    edit(folder / "config.json", architectures=["EvilForCausalLM"], model_type="evil", trust_remote_code=True)
    assert "never executed" in refusal(folder)


@pytest.mark.parametrize(
    ("architecture", "model_type"),
    [
        ("BertForMaskedLM", "bert"),
        ("T5ForConditionalGeneration", "t5"),
        ("Qwen2ForSequenceClassification", "qwen2"),
    ],
)
def test_models_that_write_no_text_are_refused(folder: Path, architecture: str, model_type: str) -> None:
    edit(folder / "config.json", architectures=[architecture], model_type=model_type)
    assert architecture in refusal(folder)


def test_a_config_without_architectures_goes_by_its_type(folder: Path) -> None:
    edit(folder / "config.json", architectures=...)
    assert open_checkpoint(str(folder)).architecture == "Qwen2ForCausalLM"


def test_no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "tokenizer.json" in refusal(folder)


# ---------------------------------------------------------------------------------------------------- pairs


def test_padded_vocabularies_are_the_same(tmp_path: Path) -> None:
    a = open_checkpoint(str(make_checkpoint(tmp_path / "a", vocab=320)))
    b = open_checkpoint(str(make_checkpoint(tmp_path / "b", vocab=384)))
    assert pair_refusal(a, b) is None


def test_different_vocabularies_are_refused(tmp_path: Path) -> None:
    a = open_checkpoint(str(make_checkpoint(tmp_path / "a")))
    other = make_checkpoint(tmp_path / "b")
    stored = json.loads((other / "tokenizer.json").read_text())
    vocab = stored["model"]["vocab"]
    first, second = list(vocab)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / "tokenizer.json").write_text(json.dumps(stored))
    b = open_checkpoint(str(other))
    sentence = pair_refusal(a, b)
    assert sentence
    assert a.name in sentence
    assert b.name in sentence
