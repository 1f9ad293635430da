"""Evaluates exported checkpoints through transformers: code length of held-out text, and samples."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tools.demo.model import CONTEXT


def load(folder: Path) -> tuple[Any, Any]:
    """Loads an exported checkpoint and its tokenizer, computing in float32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder)


def exported(out: Path) -> list[str]:
    """Lists the models in a folder, the expert first."""
    names = sorted(file.parent.name for file in out.glob("*/config.json"))
    return sorted(names, key=lambda name: name != "expert")


def encode(tokenizer: Any, text: str) -> Tensor:
    """Encodes the tokens of a whole file, after an end-of-text token."""
    return torch.tensor([tokenizer.eos_token_id, *tokenizer(text, verbose=False)["input_ids"]])


def runs(ids: Tensor, length: int = 24) -> Tensor:
    """Computes a 64-bit hash of every run of ``length`` consecutive tokens."""
    count = max(0, len(ids) - length + 1)
    hashes = torch.zeros(count, dtype=torch.int64)
    for offset in range(length):
        hashes = hashes * 1_000_003 + ids[offset : offset + count]  # wraps around on purpose
    return hashes


def distinct(train: Iterable[str], tokenizer: Any, texts: Sequence[str]) -> list[str]:
    """Keeps the texts that share under 2 % of their token runs with those that were trained on.

    A corpus repeats itself (licence headers, sibling modules, copied tests), so holding out whole texts does
    not by itself hold out all they say.
    """
    seen = torch.cat([runs(encode(tokenizer, text)) for text in train])
    shared = [torch.isin(runs(encode(tokenizer, text)), seen).float() for text in texts]
    return [t for t, s in zip(texts, shared, strict=True) if len(s) and s.mean().item() < 0.02]


@torch.no_grad()
def bits_per_byte(model: Any, tokenizer: Any, texts: Sequence[str]) -> float:
    """Computes the model's code length of ``texts`` in bits, per byte of UTF-8.

    Every text is scored whole, after an end-of-text token. Windows overlap by half, so past the
    first window each token is predicted from at least half a context.
    """
    nats, size = 0.0, 0
    for text in texts:
        ids = encode(tokenizer, text)
        size += len(text.encode())
        done = 1
        while done < len(ids):
            begin = max(0, done - CONTEXT // 2)
            end = min(begin + CONTEXT, len(ids))
            logits = model(ids[None, begin : end - 1]).logits[0, done - 1 - begin :]
            nats += F.cross_entropy(logits, ids[done:end], reduction="sum").item()
            done = end
    return nats / math.log(2) / size


def sample(out: Path, prompt: str, tokens: int) -> None:
    """Prints each model's greedy and one sampled continuation of ``prompt``."""
    for name in exported(out):
        model, tokenizer = load(out / name)
        inputs = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        for strategy in ({"do_sample": False}, {"do_sample": True, "top_p": 0.95, "top_k": 0}):
            torch.manual_seed(0)
            begin = time.monotonic()
            ids = model.generate(**inputs, max_new_tokens=tokens, **strategy)[0]
            speed = (len(ids) - inputs["input_ids"].shape[1]) / (time.monotonic() - begin)
            print(f"\n=== {name} {strategy} ({speed:.0f} tokens/s)\n{tokenizer.decode(ids)}")
