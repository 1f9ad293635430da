"""Captured steps: the same tokens as steps launched one by one, in every run, for every strategy."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edge_tui import decoders
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.events import Finished, Noticed, Unloaded
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import make_checkpoint
from tests.engine.watch import Watched, settle, watch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]

PROMPT = "the quick brown fox"
STRATEGIES = [decoder.name for decoder in decoders.strategies()]


@pytest.fixture
def gpu(open_engine: Callable[..., LocalEngine], checkpoint: Path) -> LocalEngine:
    engine = open_engine()
    for role in ("model", "amateur", "draft"):
        engine.assign(role, ModelSpec(str(checkpoint), precision="float32", device="cuda:0"))
    return engine


def _run(engine: LocalEngine, strategy: str, prompt: str = PROMPT, length: int = 60) -> Watched:
    return watch(engine, Request(prompt, strategy=strategy, seed=5, max_length=length))


def _tokens(seen: Watched) -> list[int]:
    return list(seen.finished.answer or seen.ids)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_captured_says_what_eager_says(
    gpu: LocalEngine, strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    captured = []
    launch = Generation.launch

    def watched(generation: Generation) -> None:
        launch(generation)
        captured.append(generation.captured)

    monkeypatch.setattr(Generation, "launch", watched)
    seen = _run(gpu, strategy)
    assert not [n for n in seen.all(Noticed) if "uncaptured" in n.message]
    assert captured[-1]
    monkeypatch.setattr(Generation, "_try_capture", lambda generation: None)
    for role in ("model", "amateur", "draft"):
        gpu.unload(role)  # with its contexts and their graphs
    eager = _run(gpu, strategy)
    assert not captured[-1]
    assert _tokens(eager) == _tokens(seen)
    for number in ("raw_logp", "final_logp", "entropy"):
        assert seen.column(number) == pytest.approx(eager.column(number), abs=1e-3), number


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_runs_repeat_and_do_not_disturb_one_another(gpu: LocalEngine, strategy: str) -> None:
    """The second run reuses the first one's graphs, also after other strategies and other prompts."""
    first = _tokens(_run(gpu, strategy))
    for other in ("greedy", "beam", "top_p"):
        _run(gpu, other, prompt="once upon a time there was a little river in the north", length=20)
    again = _run(gpu, strategy)
    assert _tokens(again) == first
    assert _tokens(_run(gpu, strategy)) == first


def test_a_change_is_live_within_four_tokens(gpu: LocalEngine) -> None:
    """The host runs ahead of the device; parameters are read on the device, at each step."""
    told: list[int] = []

    def turn(run: int, events: list) -> None:
        count = sum(len(e) for e in events if hasattr(e, "raw_logp"))
        if count > 20 and not told:
            told.append(count)
            gpu.set(run, "temperature", 0.0)

    for seed in range(20):  # a tiny model on a GPU may have ended its text before the change comes
        told.clear()
        request = Request(PROMPT, "top_p", {"temperature": 1.0}, seed=seed, max_length=200)
        seen = watch(gpu, request, during=turn)
        if seen.changes:
            break
    (change,) = seen.changes
    assert change.index >= told[0] - 4
    finals = seen.column("final_logp")[change.index :]
    assert finals == pytest.approx([0.0] * len(finals), abs=1e-5)


def test_a_stage_that_was_left_out_comes_in_and_goes_again(
    gpu: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each set of stages has a graph of its own; one that is kept gets the logits of the step before."""
    chain = "penalties+temperature+top_n_sigma+min_p"
    neutral = {"top_n_sigma": 0.0, "min_p": 0.0}
    cuts = {30: 1.0, 60: 0.0, 90: 1.0, 120: 0.0}
    launch = Generation.launch

    def turn(generation: Generation) -> None:
        if (value := cuts.get(generation.launched)) is not None:
            generation.runner.table.set("min_p", value)
        launch(generation)

    # Tokens come a hundred times a second, and a tiny model writes half a context in that time: changes that
    # wait for tokens would meet, and the last alone would be seen.
    with monkeypatch.context() as patch:
        patch.setattr(Generation, "launch", turn)
        for seed in range(20):  # a tiny model may have ended its text before the last change comes
            seen = watch(gpu, Request(PROMPT, chain, neutral, seed=seed, max_length=400))
            if len(seen.changes) == len(cuts):
                break
    first, second, third, fourth = (change.index for change in seen.changes)
    finals, counts = seen.column("final_logp"), seen.column("candidate_count")
    for low, high in ((first, second), (third, fourth)):
        assert finals[low:high] == pytest.approx([0.0] * (high - low), abs=1e-5)
        assert set(counts[low:high]) == {1}
    for low, high in ((0, first), (second, third), (fourth, len(finals))):
        assert min(counts[low:high], default=2) > 1
    again = watch(gpu, Request(PROMPT, chain, neutral, seed=seed, max_length=first))
    assert again.ids == seen.ids[:first]
    # What follows is what a run that goes on from there would have taken.
    prefix = tuple(seen.ids[:fourth])
    rest = watch(gpu, Request(PROMPT, chain, neutral, seed=seed, max_length=400, prefix=prefix))
    assert rest.ids[:20] == seen.ids[fourth : fourth + 20]


def test_cancelling_throws_away_what_ran_ahead(gpu: LocalEngine) -> None:
    def stop(run: int, events: list) -> None:
        if any(hasattr(e, "raw_logp") for e in events):
            gpu.cancel(run)

    seen = watch(gpu, Request(PROMPT, "top_p", seed=1, max_length=200), during=stop)
    assert seen.all(Finished)[0].reason == "cancelled"
    assert len(seen.ids) < 200
    whole = _run(gpu, "top_p")
    assert _tokens(whole) == _tokens(_run(gpu, "top_p"))


def test_a_strategy_that_cannot_be_captured_runs_all_the_same(
    gpu: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = decoders.find("beam")
    step = type(decoder).step

    def peeking(self: object, outs: object, s: object, p: object, rng: object) -> object:
        result = step(self, outs, s, p, rng)  # type: ignore[arg-type]
        assert result.chosen.tolist()
        return result

    wanted = _tokens(_run(gpu, "beam"))
    for role in ("model", "amateur", "draft"):
        gpu.unload(role)  # with its contexts and their graphs
    monkeypatch.setattr(type(decoder), "step", peeking)
    monkeypatch.setattr("edge_tui.engine.decode.step_runner.fused_step", lambda *args: None)
    seen = _run(gpu, "beam")
    assert [n for n in seen.all(Noticed) if "uncaptured" in n.message]
    assert _tokens(seen) == wanted


@pytest.mark.timeout(600)
@pytest.mark.parametrize("samples", [1, 4])
def test_a_longer_prompt_frees_what_the_shorter_one_had(
    samples: int, open_engine: Callable[..., LocalEngine], tmp_path: Path
) -> None:
    """Graphs know the runner that knows them; its contexts must not wait until Python finds the circle."""
    engine = open_engine()
    path = make_checkpoint(tmp_path / "m", context=2048, kv_heads=4, layers=4)
    engine.assign("model", ModelSpec(str(path), precision="float32", device="cuda:0"))

    def run(words: int) -> None:
        prompt = "the quick brown fox " * words
        request = Request(prompt, strategy="top_p", samples=samples, seed=5, max_length=20)
        seen = watch(engine, request, timeout=300.0)  # shapes of their own, whose kernels may not be cached
        assert seen.finished.new_tokens

    def held(*words: int) -> int:
        """Returns the bytes after runs on the model loaded anew, before Python has collected anything."""
        engine.unload("model")
        settle(engine, Unloaded)
        gc.collect()
        gc.disable()
        try:
            for count in words:
                run(count)
            return torch.cuda.memory_allocated()
        finally:
            gc.enable()

    run(100)  # what libraries keep
    room = 512 * 2 * 4 * 4 * 16 * 4  # keys and values of a row of the shorter one, 4 layers of 4 heads of 16
    assert held(5, 100) - held(100) < room / 2
