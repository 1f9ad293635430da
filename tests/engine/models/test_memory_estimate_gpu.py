"""The estimate against the allocator's peak, over models, precisions, contexts and rows: one run, one table.

    python -m pytest tests/engine/models/test_memory_estimate_gpu.py -m gpu

The models are of shapes that nothing was fitted to, with random weights that no disk holds. Each case is a
run of the engine as a user makes one: load, read a prompt that fills the context, decode.
"""

from __future__ import annotations

import gc
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_tui.bench import random_models
from edge_tui.bench.edge_runner import load
from edge_tui.engine.checkpoints.checkpoint import Checkpoint, open_checkpoint
from edge_tui.engine.events import Event, FirstToken, Loaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.memory_estimate import MemoryEstimate, estimate
from edge_tui.engine.port import ModelSpec, Precision, Request
from tests.engine.watch import settle, watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
    pytest.mark.timeout(3600),
]

DEVICE = "cuda:0"
WITHIN = 0.05
NEW = 64
"""Tokens decoded at the end of the context."""
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16", "int8", "4bit")
CONTEXTS = (2048, 8192)
ROWS = (1, 4)
COMPILING = 600.0
"""Seconds after which a run counts as hung: where no kernel is cached, minutes go into compiling them."""
COMMON = {"max_position_embeddings": 8192, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **COMMON}
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **COMMON}


def sizes(hidden: int, wide: int, layers: int, heads: int, kv_heads: int, vocab: int) -> dict[str, int]:
    return {
        "hidden_size": hidden,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
    }


SHAPES: dict[str, dict[str, Any]] = {
    # Deep and narrow, a small vocabulary, one key head for five queries.
    "narrow": QWEN2 | sizes(640, 3456, 32, 10, 2, 49_152) | {"tie_word_embeddings": True},
    # Shallow and wide, keys for every query, a head of its own.
    "wide": LLAMA | sizes(2560, 6912, 10, 20, 20, 32_000) | {"tie_word_embeddings": False},
    # Half of its weights are the vocabulary.
    "wordy": LLAMA | sizes(1024, 3072, 20, 16, 8, 128_256) | {"tie_word_embeddings": True},
}


@dataclass(frozen=True, slots=True)
class Measured:
    """The allocator's bytes, less what was there before.

    Attributes:
        weights: After the model was loaded.
        storing: Most until then.
        reading: Most between then and the first token.
        total: Most of all.
    """

    weights: int
    storing: int
    reading: int
    total: int


def measure(checkpoint: Checkpoint, precision: Precision, context: int, rows: int) -> Measured:
    """Loads a model, reads a prompt that leaves room for `NEW` tokens, and decodes them in `rows` samples."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # every case pays for its own  # noqa: SLF001
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    spec = ModelSpec(str(checkpoint.path), precision, DEVICE, context)
    engine = LocalEngine({"model": spec}, lambda *call: load(*call, random_weights=True)[0])
    try:
        engine.load("model")
        settle(engine, Loaded, timeout=COMPILING)
        weights, storing = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
        reading: list[int] = []

        def notice(run: int, seen: list[Event]) -> None:
            if not reading and any(isinstance(event, FirstToken) for event in seen):
                reading.append(torch.cuda.max_memory_allocated())

        rng = random.Random(7)
        ids = tuple(rng.randrange(300, 30_000) for _ in range(context - NEW))
        request = Request("", ids=ids, strategy="top_p", samples=rows, max_length=NEW, seed=1)
        # What cuBLAS keeps is there from the first prompt's last layer on, and beside all later prompts.
        watch(engine, replace(request, ids=ids[:32], max_length=1), timeout=COMPILING)
        seen = watch(engine, request, during=notice, timeout=COMPILING)
        peak = seen.finished.peak_bytes
        assert peak is not None
        assert seen.finished.new_tokens == NEW * rows
        return Measured(weights - before, storing - before, reading[0] - before, max(peak, storing) - before)
    finally:
        assert engine.close(20)


def row(cells: list[Any]) -> str:
    """A line of the table; bytes in millions."""
    return "  ".join(f"{cell / 1e6:8.1f}" if isinstance(cell, int) else f"{cell:>8}" for cell in cells)


HEAD = (
    "model", "weights", "context", "rows", "E:weight", "E:kv", "E:logits", "E:over", "E:total",
    "M:weight", "M:store", "M:read", "M:total", "E/M",
)  # fmt: skip


def line(name: str, precision: str, context: int, rows: int, f: MemoryEstimate, m: Measured) -> str:
    facts = [name, precision, str(context), str(rows)]
    told = [f.weights, f.kv, f.logits, f.overhead, f.total, m.weights, m.storing, m.reading, m.total]
    return row([*facts, *told, f"{f.total / m.total:.3f}"])


@pytest.fixture
def invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Checkpoint]:
    made = {}
    for name, config in SHAPES.items():
        monkeypatch.setitem(random_models.CONFIGS, name, (config, config["vocab_size"] - 100))
        made[name] = open_checkpoint(str(random_models.write_random(tmp_path / name, name)))
    return made


def test_the_estimate_is_within_five_percent_of_the_peak_everywhere(
    invented: dict[str, Checkpoint], capsys: pytest.CaptureFixture[str]
) -> None:
    missed = []
    # What is allocated once a process (the driver's tables, compiled kernels' scratch) is no model's.
    for precision in PRECISIONS:
        measure(invented["narrow"], precision, 2048, 1)
    with capsys.disabled():
        print(f"\nMB on {torch.cuda.get_device_name()}, torch {torch.__version__}; E estimate, M measured")
        print(row(list(HEAD)), flush=True)
        for name, checkpoint in invented.items():
            for precision in PRECISIONS:
                for context in CONTEXTS:
                    for rows in ROWS:
                        expected = estimate(checkpoint, precision, context, rows, DEVICE, NEW)
                        found = measure(checkpoint, precision, context, rows)
                        told = line(name, precision, context, rows, expected, found)
                        print(told, flush=True)
                        if abs(expected.total / found.total - 1) > WITHIN:
                            missed.append(told)
    assert not missed, "\n" + "\n".join([row(list(HEAD)), *missed])
