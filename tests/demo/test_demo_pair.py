"""The shipped demo pair: its size, its shape, and that strategies have something to show on it."""

from __future__ import annotations

import ast
import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

from tools.demo.evaluation import bits_per_byte, load
from tools.demo.model import PYTHON_SHAPES, LanguageModel
from tools.demo.texts import split_of

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "edge_tui" / "demo"
NAMES = ("expert", "amateur")


@pytest.fixture(scope="module")
def pair() -> dict[str, tuple[Any, Any]]:
    return {name: load(DEMO / name) for name in NAMES}


def continuation(pair: dict[str, tuple[Any, Any]], prompt: str, **strategy: Any) -> tuple[int, ...]:
    model, tokenizer = pair["expert"]
    inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    torch.manual_seed(0)
    ids = model.generate(**inputs, max_new_tokens=150, **strategy)[0].tolist()
    return tuple(ids[inputs["input_ids"].shape[1] :])


def repetition(ids: tuple[int, ...], length: int = 8) -> float:
    """Return the share of n-grams that were seen before."""
    grams = [ids[i : i + length] for i in range(len(ids) - length + 1)]
    return 1 - len(set(grams)) / len(grams)


def test_fits_in_twelve_megabytes() -> None:
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file()) <= 12_000_000


def test_tokenizers_are_one_and_the_same() -> None:
    expert, amateur = ((DEMO / name / "tokenizer.json").read_bytes() for name in NAMES)
    assert expert == amateur


@pytest.mark.parametrize("name", NAMES)
def test_tokenizer_knows_the_end_and_loses_nothing(pair: dict[str, tuple[Any, Any]], name: str) -> None:
    model, tokenizer = pair[name]
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    assert tokenizer.eos_token_id == end == model.config.eos_token_id
    assert model.generation_config.eos_token_id == end
    assert len(tokenizer) == model.config.vocab_size
    text = "def f(x):\n        return {'é': x}  # ☃\r\n\n\tpass\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_sixteen_bit_and_the_card_counts_them(
    pair: dict[str, tuple[Any, Any]], name: str
) -> None:
    raw = (DEMO / name / "model.safetensors").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert {entry["dtype"] for key, entry in header.items() if key != "__metadata__"} == {"BF16"}
    card = (DEMO / name / "README.md").read_text(encoding="utf-8")
    assert f"{pair[name][0].num_parameters():,}" in card
    assert "PSF-2.0" in card


def test_expert_is_several_times_larger(pair: dict[str, tuple[Any, Any]]) -> None:
    expert, amateur = (pair[name][0].num_parameters() for name in NAMES)
    assert expert > 4 * amateur


@pytest.mark.proof
def test_expert_predicts_held_out_source_better(pair: dict[str, tuple[Any, Any]]) -> None:
    files = ("copyreg.py", "asyncio/taskgroups.py", "selectors.py")
    assert {split_of(file) for file in files} == {"heldout"}
    lib = Path(sysconfig.get_path("stdlib"))
    texts = [(lib / file).read_text(encoding="utf-8") for file in files]
    expert, amateur = (bits_per_byte(*pair[name], texts) for name in NAMES)
    assert expert < 1.1
    assert amateur > 1.15 * expert


@pytest.mark.proof
def test_exported_weights_compute_what_was_trained(pair: dict[str, tuple[Any, Any]]) -> None:
    exported, tokenizer = pair["amateur"]
    trained = LanguageModel(PYTHON_SHAPES["amateur"]).eval()
    weights = exported.state_dict()
    trained.load_state_dict({k: weights[f"model.{k}"] for k in trained.state_dict()})
    ids = torch.tensor([tokenizer("import os\n\nclass A:\n    pass\n")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(trained.logits(ids), exported(ids).logits, atol=1e-3, rtol=1e-3)


@pytest.mark.proof
def test_expert_writes_a_function_body(pair: dict[str, tuple[Any, Any]]) -> None:
    prompt = "def fibonacci(n):"
    ids = continuation(pair, prompt, do_sample=False)
    text = prompt + pair["expert"][1].decode(ids)
    # The first function ends where the indentation falls back below its body's.
    head, *lines = text.splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    assert indent >= 4
    body: list[str] = []
    for line in lines:
        if line.strip() and not line.startswith(" " * indent):
            break
        body.append(line)
    function = ast.parse("\n".join([head, *body])).body[0]
    assert isinstance(function, ast.FunctionDef)


@pytest.mark.proof
def test_greedy_loops_where_sampling_does_not(pair: dict[str, tuple[Any, Any]]) -> None:
    greedy = repetition(continuation(pair, "class Stack:\n", do_sample=False))
    sampled = repetition(continuation(pair, "class Stack:\n", do_sample=True, top_p=0.95, top_k=0))
    assert greedy > 0.6
    assert sampled < 0.5
