"""A real published chat model, end to end: SmolLM2-135M-Instruct out of its GGUF file.

The reference is transformers over the same weights, dequantised to safetensors by the `gguf` package alone.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from gguf import GGMLQuantizationType as Type
from safetensors.torch import load_file
from torch.nn import functional as F

from edge_tui.engine.checkpoints.checkpoint import open_checkpoint, pair_refusal
from edge_tui.engine.events import PromptRead
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.loading import load_flat
from edge_tui.engine.ops import packed_linear
from edge_tui.engine.ops.code_groups import unpack
from edge_tui.engine.port import Message, ModelSpec, Request
from tests.engine.checkpoints.gguf.test_tokenizer import strings
from tests.engine.perplexity_packed import divergence, english, losses
from tests.engine.requantise import requantise
from tests.engine.watch import Watched, watch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_tui.engine.ops.packed import PackedMatrix

pytestmark = [pytest.mark.proof, pytest.mark.timeout(1200)]

SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
QUESTION = "What is the capital of France?"
CHAT = (
    f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
ENGLISH = (
    "The sun rises in the east and sets in the west. Water boils at one hundred degrees and freezes at zero. "
    "Most birds can fly, but some of them, such as the penguin, have learned to swim instead."
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the GGUF file and its dequantised twin."""
    folder = tmp_path_factory.mktemp("models") / "smollm2"
    subprocess.run([sys.executable, "tools/dequantise_smollm2.py", str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def folder(model: Path) -> Path:
    return model / "safetensors"


def load(path: Path) -> LocalEngine:
    return LocalEngine({"model": ModelSpec(str(path), precision="float32", device="cpu", context=1024)})


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[LocalEngine]:
    engine = load(model / "model.gguf")
    yield engine
    assert engine.close(60.0)


@pytest.fixture(scope="module")
def reference(folder: Path) -> tuple[Any, Any]:
    """transformers' model and tokenizer of the same files."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()
    return model, AutoTokenizer.from_pretrained(folder)


def prompt_of(run: Watched) -> PromptRead:
    return run.all(PromptRead)[0]


def test_a_question_is_answered_in_english(engine: LocalEngine) -> None:
    run = watch(engine, Request(QUESTION, strategy="greedy", max_length=64))
    assert "Paris" in run.text
    assert run.finished.reason == "eos"
    assert "<|im_end|>" not in run.text


def test_the_file_decodes_as_its_dequantised_twin(engine: LocalEngine, model: Path, folder: Path) -> None:
    twin = load(folder)
    for prompt in (QUESTION, "Count from 1 to 20.", "Write a haiku about a river."):
        request = Request(prompt, strategy="greedy", max_length=48)
        assert watch(engine, request, timeout=300).ids == watch(twin, request, timeout=300).ids
    assert twin.close(60.0)
    file, other = open_checkpoint(str(model / "model.gguf")), open_checkpoint(str(folder))
    reader, twins = file.open_tensors(), load_file(folder / "model.safetensors")
    assert sorted(reader.names()) == sorted(twins)
    assert all(torch.equal(reader.read(name), tensor) for name, tensor in twins.items())
    assert pair_refusal(file, other) is None
    assert file.chat_template == other.chat_template


def test_ten_thousand_strings_are_encoded_as_by_tokenizer_json(model: Path, folder: Path) -> None:
    own, twin = (open_checkpoint(str(path)).read_tokenizer() for path in (model / "model.gguf", folder))
    many = strings(10_000)
    assert [one.ids for one in own.encode_batch(many)] == [one.ids for one in twin.encode_batch(many)]


def test_the_template_gives_the_published_prompt(
    engine: LocalEngine, folder: Path, reference: tuple[Any, Any]
) -> None:
    _, tokenizer = reference
    turns = [{"role": "user", "content": QUESTION}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == CHAT
    ids = tokenizer(CHAT, add_special_tokens=False).input_ids
    run = watch(engine, Request(QUESTION, strategy="greedy", max_length=1))
    assert run.started.prompt_tokens == len(ids)
    spoken = watch(engine, Request((Message("user", QUESTION),), strategy="greedy", max_length=12))
    written = watch(engine, Request(CHAT, chat=False, control_tokens=True, strategy="greedy", max_length=12))
    assert spoken.ids == written.ids


def test_every_token_of_the_vocabulary_reads_as_in_transformers(
    engine: LocalEngine, reference: tuple[Any, Any]
) -> None:
    _, tokenizer = reference
    watch(engine, Request(ENGLISH, strategy="greedy", max_length=1))
    texts = engine.decode(range(len(tokenizer)))
    whole = [(at, text) for at, text in enumerate(texts) if "�" not in tokenizer.decode([at])]
    assert len(texts) == 49_152
    assert len(whole) > 48_000
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    differing = [(at, text) for at, text in whole if at not in special and text != tokenizer.decode([at])]
    assert not differing


@pytest.mark.parametrize("beams", [1, 4])
def test_answers_are_those_of_generate(engine: LocalEngine, reference: tuple[Any, Any], beams: int) -> None:
    model, tokenizer = reference
    ids = tokenizer(CHAT, return_tensors="pt", add_special_tokens=False)
    asked = {"max_new_tokens": 40, "do_sample": False, "num_beams": beams, "early_stopping": False}
    expected = model.generate(**ids, **asked)[0, ids.input_ids.shape[1] :].tolist()
    strategy, values = ("greedy", {}) if beams == 1 else ("beam", {"num_beams": beams})
    run = watch(engine, Request(QUESTION, strategy=strategy, values=values, max_length=40))
    text = tokenizer.decode(expected, skip_special_tokens=True)
    assert (run.text if beams == 1 else best_text(run)) == text


def best_text(run: Watched) -> str:
    """The text of a search's best hypothesis."""
    from edge_tui.transcript.transcript import Transcript

    transcript = Transcript(run.started)
    for event in run.events:
        transcript.apply(event)
    return transcript.text


def test_a_text_is_as_surprising_as_in_transformers(engine: LocalEngine, reference: tuple[Any, Any]) -> None:
    model, tokenizer = reference
    ids = tokenizer(ENGLISH, return_tensors="pt", add_special_tokens=False).input_ids
    with torch.no_grad():
        logps = model(ids).logits[0].log_softmax(-1)
    expected = [float(logps[at, after]) for at, after in enumerate(ids[0, 1:].tolist())]
    run = watch(engine, Request(ENGLISH, chat=False, strategy="greedy", max_length=0, prompt_logps=True))
    own = [value for value in prompt_of(run).logp if not math.isnan(value)]
    assert own == pytest.approx(expected, abs=1e-3)
    assert math.exp(-sum(own) / len(own)) < 25, "English should not surprise a model of English"


def test_a_second_turn_goes_on_from_the_first_and_is_that_of_generate(
    engine: LocalEngine, reference: tuple[Any, Any]
) -> None:
    model, tokenizer = reference
    turns = [Message("user", "Name three fruits.")]
    first = watch(engine, Request(tuple(turns), strategy="greedy", max_length=40))
    turns += [Message("assistant", first.text), Message("user", "Which of them is yellow?")]
    second = watch(engine, Request(tuple(turns), strategy="greedy", max_length=30))
    assert second.started.reused_tokens >= first.started.prompt_tokens
    ids = tokenizer.apply_chat_template(
        [{"role": turn.role, "content": turn.content} for turn in turns],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    expected = model.generate(**ids, max_new_tokens=30, do_sample=False)[0, ids.input_ids.shape[1] :]
    assert second.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_codes_kept_for_a_gpu_are_as_good_as_dequantised_weights(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Perplexity of English text in float16, the product in plain operations: other tests hold it to them."""

    def project(x: torch.Tensor, packed: PackedMatrix, out: torch.Tensor) -> None:
        out.copy_(F.linear(x.float(), unpack(packed).dequantise()))

    monkeypatch.setattr(packed_linear, "check", lambda *_: None)
    monkeypatch.setattr(packed_linear, "_FEW", 256)
    monkeypatch.setattr(pytest.importorskip("edge_tui.engine.ops.triton.project"), "project", project)
    checkpoint = open_checkpoint(str(model / "model.gguf"))
    text = Path("docs/how-the-engine-works.md").read_text(encoding="utf-8")
    ids = torch.tensor(checkpoint.read_tokenizer().encode(text).ids[:768])[None]

    def perplexity(codes: bool, dtype: torch.dtype) -> float:
        flat = load_flat(
            checkpoint, device="cpu", dtype=dtype, precision=str(dtype), context=1024, codes=codes
        )
        ctx = flat.open(1, 1024)
        logits = torch.cat([flat.forward(ctx, piece).logits[0].float() for piece in ids.split(256, 1)])
        losses = -logits[:-1].log_softmax(-1).gather(1, ids[0, 1:, None])
        return float(losses.mean().exp())

    kept = perplexity(True, torch.float16)
    assert abs(kept / perplexity(False, torch.float16) - 1) < 1e-3
    assert abs(kept / perplexity(False, torch.float32) - 1) < 1e-3


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", [Type.Q4_0, Type.Q4_1, Type.Q4_K], ids=lambda kind: kind.name)
def test_codes_kept_by_a_cpu_are_as_good_as_dequantised_weights(
    kind: Type, model: Path, tmp_path: Path
) -> None:
    """Perplexity within 0.1 % in the form that ships; perplexity_packed measures a GPU's kinds."""
    file = requantise(model / "model.gguf", kind, tmp_path / "model.gguf")
    ids = english(str(file))
    found = losses(file, file, ids, "cpu")
    (precision, packed), (_, exact) = found.items()
    assert precision.endswith("packed")
    assert abs(float((packed - exact).mean())) < 1e-3
    assert float(divergence(file, file, ids[:1], "cpu").mean()) < 6e-4
