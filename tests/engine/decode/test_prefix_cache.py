"""A context that a run left behind holds the keys and values of the ids that the cache says.

A second prompt goes on where a first run ended. An engine that still has its context must give the numbers
that a fresh engine gives.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Needs, Output
from edge_tui.engine.decode import cuda_graphs
from edge_tui.engine.decode.cuda_graphs import Graphs
from edge_tui.engine.decode.prefix_cache import PrefixCache, PrefixEntry
from edge_tui.engine.decode.step_runner import StepRunner
from edge_tui.engine.decode.stream_groups import StreamGroup
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.base import CapturableContext
from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec, Precision, Request
from tests.engine.decode.explaining import question_at
from tests.engine.models.architectures import make_tiny
from tests.engine.random_checkpoints import TOKENS, make_checkpoint, save_tokenizer
from tests.engine.watch import Watched, watch

PROMPT = tuple(range(40, 60))
MORE = (77, 91, 120)
"""What the second prompt has after the first and its answer."""
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 0.15}
"""Nats. A cache that believes one id too many is off by 0.25 to 1.6; chunks of a prompt and single tokens
round differently in bfloat16, by up to 0.04."""
_CANCELLING_WAKE = 6
"""The event of a run on a loaded model that cancels it: after its first token, long before its last."""
RUNS = {
    "length": Request("", "greedy", ids=PROMPT, max_length=12),
    "stop": Request("", "greedy", ids=PROMPT, max_length=100, stop=("e", "o")),
    "cancelled": Request("", "greedy", ids=PROMPT, max_length=400),
    "prefix": Request("", "greedy", ids=PROMPT, prefix=(61, 62), max_length=12),
    "samples": Request("", "top_p", {"temperature": 1.5}, ids=PROMPT, max_length=12, seed=3, samples=3),
    "beams": Request("", "beam", ids=PROMPT, max_length=12),
    "speculation": Request("", "speculative", ids=PROMPT, max_length=12),
    "speculation cancelled": Request("", "speculative", ids=PROMPT, max_length=400),
}


class Engines:
    """Holds an engine that has run something, and opens fresh ones."""

    def __init__(self, folder: Path, precision: Precision) -> None:
        self.specs = {
            role: ModelSpec(str(folder / role), precision, "cpu", context=512) for role in ("model", "draft")
        }
        self.tolerance = TOLERANCE[precision]
        self.wakes_left = 0
        self.used = LocalEngine(self.specs, wake=self.cancel_when_due)

    def cancel_when_due(self) -> None:
        """Counts down on the owner thread, so that a run is cancelled however slow this test's thread is."""
        self.wakes_left -= 1
        if self.wakes_left == 0:
            self.used.cancel()

    def run(self, request: Request, cancelled: bool) -> Watched:
        """Decodes on the used engine."""
        if cancelled:
            watch(self.used, replace(request, ids=MORE, max_length=1))  # loads the models
            self.wakes_left = _CANCELLING_WAKE
        return watch(self.used, request)

    def reused_after(self, ids: tuple[int, ...], role: str = "model") -> int:
        """Compares both engines' numbers after some ids; returns how many positions the used one had."""
        request = Request("", "greedy", ids=ids, max_length=3)
        fresh = LocalEngine({"model": self.specs[role]})
        self.used.assign("model", self.specs[role])
        got, wanted = watch(self.used, request), watch(fresh, request)
        assert fresh.close(60.0)
        assert wanted.started.reused_tokens == 0
        for name in ("raw_logp", "top_logp", "entropy"):
            difference = np.array(got.column(name)) - np.array(wanted.column(name))
            assert np.abs(difference[0]).max() < self.tolerance, name
            # In bfloat16 the second token may be another one of two that are nearly equally likely.
            assert got.ids != wanted.ids or np.abs(difference).max() < self.tolerance, name
        return got.started.reused_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a model, and a draft that proposes some of what the model would write; neither ends an answer."""
    folder = tmp_path_factory.mktemp("models")
    for role, std in (("model", 0.2), ("draft", 0.198)):
        endless = {"eos_token_id": TOKENS + 9}
        make_checkpoint(folder / role, context=512, std=std, seed=9, generation=endless, extra=endless)
        (folder / role / "tokenizer_config.json").write_text("{}")
    return folder


@pytest.fixture(params=TOLERANCE)
def engines(request: pytest.FixtureRequest, folder: Path) -> Iterator[Engines]:
    engines = Engines(folder, request.param)
    yield engines
    assert engines.used.close(60.0)


@pytest.mark.parametrize("name", RUNS)
def test_a_used_context_says_what_a_fresh_one_says(name: str, engines: Engines) -> None:
    request = RUNS[name]
    first = engines.run(request, "cancelled" in name)
    assert first.finished.reason == next((end for end in ("stop", "cancelled") if end in name), "length")
    answer = first.finished.answer or tuple(first.ids)
    whole = (*PROMPT, *request.prefix, *answer)
    # Rows side by side leave the prompt alone; how many of its last tokens a draft has read is not certain.
    unread = len(answer) if first.started.rows > 1 else 6 if "speculation" in name else 1
    assert engines.reused_after((*whole, *MORE)) >= len(whole) - unread
    assert engines.reused_after((*whole[:10], *MORE)) == 10
    if "speculation" in name:
        assert engines.reused_after((*whole, *MORE), "draft") == len(PROMPT)


AGAIN = {
    "samples": RUNS["samples"],
    "beam": RUNS["beams"],
    "speculation": RUNS["speculation"],
    "two prompts": Request("", "cfg", {"temperature": 0.8}, ids=PROMPT, max_length=12, seed=3),
    "layers": Request("", "dola", {"temperature": 0.8}, ids=PROMPT, max_length=12, seed=3),
    "prefix": RUNS["prefix"],
}


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a model that only transformers knows."""
    path = make_tiny(tmp_path_factory.mktemp("models") / "other", "apertus", vocab_size=TOKENS)
    save_tokenizer(path)
    return path


@pytest.mark.parametrize(("name", "tier"), [*((name, "flat") for name in AGAIN), ("samples", "transformers")])
def test_the_same_prompt_begins_with_the_same_numbers(
    name: str, tier: str, folder: Path, other: Path
) -> None:
    """In bfloat16, where the last id read alone gives others than read with those before it."""
    request = AGAIN[name]
    models = {"model": folder / "model" if tier == "flat" else other, "draft": folder / "draft"}
    engine = LocalEngine({role: ModelSpec(str(path), "bfloat16", "cpu") for role, path in models.items()})
    first = watch(engine, request)
    engine.explain(question_at(request, first, 0))
    engine.explain(question_at(request, first, 5))
    again = watch(engine, request)
    assert engine.close(60.0)
    assert again.started.reused_tokens == len(PROMPT) + len(request.prefix)
    for row in range(first.started.rows):
        for column in ("id", "raw_logp", "entropy"):
            mine, its = (seen.column(column, row) for seen in (first, again))
            assert [str(each) for each in mine] == [str(each) for each in its], (row, column)


@torch.inference_mode()
def test_an_output_is_kept_until_its_last_id_is_read_again(checkpoint: Path) -> None:
    model, cache, ids = load(ModelSpec(str(checkpoint), device="cpu")).model, PrefixCache(), [5, 6, 7, 8]
    key = id(model), 0
    entry = cache.open(key, model, ids, 16, 16)
    output = model.prefill(entry.context, torch.tensor([ids]))
    entry.ids.extend(ids)
    entry.keep_end(output)
    wanted = output.logits.clone()
    output.logits.zero_()  # as the next step on a GPU does
    assert cache.open(key, model, ids, 16, 16) is entry
    kept = entry.output_after(4, Needs())
    assert kept is not None
    assert torch.equal(kept.logits, wanted)
    assert entry.output_after(4, Needs(hidden=(1,))) is None
    cache.open(key, model, [5, 6, 9, 9], 16, 16)  # and whatever happens while these are read
    assert entry.output_after(4, Needs()) is None


def test_a_dropped_context_waits_for_no_collection(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context holds the step that appends an id to it, which was captured by a runner that knows it."""
    monkeypatch.setattr(cuda_graphs, "capture", lambda _piece: SimpleNamespace(replay=lambda: None))
    model, decoder = load(ModelSpec(str(checkpoint), device="cpu")).model, decoders.find("greedy")
    entry = PrefixEntry(model.open(1, 16, 16))
    group = StreamGroup(("model",), model, entry.context, 1)
    runner = StepRunner(decoder, [group], {param.name: param.default for param in decoder.params}, 1, (), 64)
    runner.outputs = {"model": Output(torch.zeros(1, 1, 64))}
    runner.graphs = Graphs(runner)
    entry.keep(runner)
    assert isinstance(entry.context, CapturableContext)
    assert entry.context.replay is not None
    context = weakref.ref(entry.context)
    gc.disable()
    try:
        entry.free()
        del entry, group, runner
        assert context() is None
    finally:
        gc.enable()
