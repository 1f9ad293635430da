"""Each thing that is no checkpoint, or not one that can be run, is called what it is."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.engine.checkpoints import tokenizer_files
from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "model")


def edit(folder: Path, **values: Any) -> None:
    file = folder / "config.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in (stored | values).items() if v is not ...}))


def refusal(name: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(name))
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("model-Q4_K_M.gguf", b"GGUF\x03", "too few for a GGUF file"),
        ("blob", b"GGUF\x03", "too few for a GGUF file"),
        ("pytorch_model.bin", b"PK\x03\x04", "can run code"),
        ("notes.txt", b"hello", "is a file, not a folder"),
        ("empty.txt", b"", "is a file, not a folder"),
    ],
)
def test_a_file_in_the_place_of_a_folder(tmp_path: Path, file: str, content: bytes, words: str) -> None:
    (tmp_path / file).write_bytes(content)
    assert words in refusal(tmp_path / file)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_one_file_of_a_checkpoint_leads_to_its_folder(folder: Path, file: str) -> None:
    assert f"give its folder, {folder}." in refusal(folder / file)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "empty folder"),
        ({"adapter_config.json": "{}", "adapter_model.safetensors": ""}, "LoRA"),
        ({"m.gguf": "GGUF"}, "GGUF"),
        ({"model_index.json": "{}"}, "diffusion"),
        ({"pytorch_model.bin": ""}, "can run code"),
        ({"model.safetensors": ""}, "no config.json"),
        ({"README.md": ""}, "no config.json"),
    ],
)
def test_a_folder_without_a_config(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    assert words in refusal(tmp_path)


@pytest.mark.parametrize(
    "file", ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"]
)
def test_a_pointer_in_a_files_place(folder: Path, file: str) -> None:
    (folder / file).write_text(POINTER)
    sentence = refusal(folder)
    assert file in sentence
    assert "git lfs pull" in sentence


@pytest.mark.parametrize(
    ("architecture", "model_type", "words"),
    [
        ("T5ForConditionalGeneration", "t5", "encoder–decoder"),
        ("BartForConditionalGeneration", "bart", "encoder–decoder"),
        ("WhisperForConditionalGeneration", "whisper", "encoder–decoder"),
        (..., "t5", "encoder–decoder"),
        (..., "bart", "encoder–decoder"),
        ("LlavaForConditionalGeneration", "llava", "vision–language"),
        ("Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl", "vision–language"),
        ("ViTForImageClassification", "vit", "a vision model"),
        ("CLIPModel", "clip", "a vision model"),
        ("BertForMaskedLM", "bert", "an encoder, which fills gaps"),
        ("BertModel", "bert", "an encoder, which fills gaps"),
        (..., "roberta", "an encoder, which fills gaps"),
        ("Wav2Vec2ForCTC", "wav2vec2", "an audio model"),
        ("LlamaForSequenceClassification", "llama", "a classifier"),
        ("Qwen2Model", "qwen2", "without a head"),
        ("FooForCausalLM", "foo", "not a causal language model that transformers knows"),
    ],
)
def test_the_kind_of_a_model_that_does_not_decode(
    folder: Path, architecture: object, model_type: str, words: str
) -> None:
    edit(folder, architectures=... if architecture is ... else [architecture], model_type=model_type)
    assert words in refusal(folder)


@pytest.mark.parametrize("key", ["AutoModelForCausalLM", "AutoModel", "AutoConfig"])
def test_code_of_its_own(folder: Path, key: str) -> None:
    edit(folder, architectures=["ChatModel"], model_type="chatty", auto_map={key: "modeling.Chat"})
    assert "never executed" in refusal(folder)


def test_a_tokenizers_code_is_never_executed(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    classes = {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(classes))
    checkpoint = open_checkpoint(str(folder))
    checkpoint.class_tokens()
    (folder / "tokenizer.json").unlink()
    with suppress(CheckpointError):
        checkpoint.read_tokenizer()
    assert not ran.exists()


def test_quantisation_that_only_the_tensors_tell(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    name = "model.layers.0.mlp.down_proj.qweight"
    save_file({name: torch.zeros(2, 2, dtype=torch.int32)}, folder / "model.safetensors")
    assert "GPTQ or AWQ" in refusal(folder)


def test_quantisation_under_its_early_name(folder: Path) -> None:
    edit(folder, compression_config={"quant_method": "compressed-tensors"})
    assert "COMPRESSED-TENSORS" in refusal(folder)


def test_a_tokenizer_that_needs_a_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.model").write_bytes(b"\n\x0e")
    monkeypatch.setattr(tokenizer_files, "find_spec", lambda _name: None)
    sentence = refusal(folder)
    assert "tokenizer.model" in sentence
    assert "pip install sentencepiece" in sentence


def test_what_cannot_be_read(folder: Path) -> None:
    assert "File name too long" in refusal("/" + "x" * 5000)
    assert "~nobody-here" in refusal("~nobody-here/model")
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    assert "config.json" in refusal(folder)
