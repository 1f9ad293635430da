"""The launch side: it never waits, it outlives faults, and a GPU says what a CPU says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Param, ParamError
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.param_table import ParamTable
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.ring import Ring
from edge_tui.engine.decode.run_plan import plan_run
from edge_tui.engine.events import Died, Event, Failed, Finished, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.flat import FlatModel
from edge_tui.engine.models.loader import load
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.watch import settle, watch

PROMPT = "the quick brown fox"
KNOBS = (Param("a", 1.0, 0.0, 2.0, "a"), Param("b", 5, 1, 9, "b", integer=True, live=False))


def test_the_table_carries_a_version_to_the_device() -> None:
    table = ParamTable(KNOBS, {"a": 1.0, "b": 5}, rows=3, device="cpu")
    view = table.params["a"]
    assert view.shape == (3, 1)
    table.set("a", 0.5)
    table.set("a", 0.25)
    assert view[0].item() == 1.0  # only a refresh moves it
    table.refresh()
    assert view[:, 0].tolist() == [0.25] * 3
    assert table.version_row.tolist() == [2.0] * 3
    assert table.changes_between(0, 2) == {"a": 0.25}
    for name, value in (("a", 3), ("a", "x"), ("b", 6), ("c", 1)):
        with pytest.raises(ParamError, match=name):
            table.set(name, value)


def test_a_greedy_parameter_freezes_the_temperature_until_it_is_turned_back() -> None:
    params = decoders.find("top_p").params
    values = {param.name: param.default for param in params} | {"top_p": 0.0, "temperature": 1.5}
    table = ParamTable(params, values, rows=2, device="cpu")
    heat = table.params["temperature"]

    def now() -> float:
        table.refresh()
        return float(heat[0])

    assert now() == 0
    table.set("temperature", 2.0)
    assert now() == 0
    table.set("top_p", 0.5)
    assert now() == 2
    table.set("top_p", 0)
    assert now() == 0
    table.restart(values | {"top_p": 1.0})
    assert now() == 1.5


def test_the_ring_keeps_order_on_the_cpu() -> None:
    ring = Ring("cpu")
    assert ring.empty
    ring.write(torch.tensor([[1]]), torch.tensor([[1.0]]))
    assert ring.full
    ((ints, floats),) = ring.read()
    assert ints[0, 0] == 1
    assert floats[0, 0] == 1.0
    assert ring.empty


def test_a_new_run_reads_no_record_of_the_last() -> None:
    ring = Ring("cpu")
    ring.write(torch.tensor([[1]]), torch.tensor([[1.0]]))
    ring.restart()
    assert ring.empty


def test_a_new_run_reports_no_change_of_the_last() -> None:
    table = ParamTable(KNOBS, {"a": 1.0, "b": 5}, rows=1, device="cpu")
    table.set("a", 0.5)
    table.restart({"a": 1.0, "b": 5})
    table.set("a", 0.25)
    assert table.changes_between(0, 1) == {"a": 0.25}
    table.refresh()
    assert table.version_row.tolist() == [1.0]


def test_a_model_that_goes_leaves_no_context(checkpoint: Path) -> None:
    model, other = (load(ModelSpec(str(checkpoint), device="cpu")).model for _ in range(2))
    cache = PrefixCache()
    for each in (model, other):
        cache.open((id(each), 0), each, [1, 2], 4, 4)
    cache.drop_model(model)
    assert list(cache) == [(id(other), 0)]


def _gpu_is_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def _cpu_is_full() -> None:
    torch.empty(2**60, dtype=torch.uint8)


def _python_is_full() -> None:
    b"x" * 2**62


def _strategy_is_full() -> None:
    try:
        _cpu_is_full()
    except RuntimeError as error:
        raise ValueError("a library's own word for it") from error


@pytest.mark.parametrize(
    ("at", "lack"),
    [(0, _cpu_is_full), (5, _gpu_is_full), (5, _cpu_is_full), (5, _python_is_full), (5, _strategy_is_full)],
)
def test_running_out_of_memory_keeps_the_text_and_the_engine(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, at: int, lack: Callable[[], None]
) -> None:
    watch(engine, Request(PROMPT[1:], strategy="greedy", max_length=2))
    name, count = ("prefill" if at == 0 else "forward"), 0
    original = getattr(FlatModel, name)

    def fail(self: object, *args: object, **kwargs: object) -> object:
        nonlocal count
        count += 1
        if count >= max(at, 1):
            lack()
        return original(self, *args, **kwargs)

    monkeypatch.setattr(FlatModel, name, fail)
    seen = watch(engine, Request(PROMPT, strategy="greedy", max_length=20))
    assert "out of memory" in seen.failed.message
    assert len(seen.ids) == at
    monkeypatch.undo()
    assert watch(engine, Request(PROMPT, strategy="greedy", max_length=3)).finished.new_tokens == 3


def test_a_dead_owner_thread_is_announced(checkpoint: Path) -> None:
    def die(*arguments: object) -> NoReturn:
        raise SystemExit("device lost")

    engine = LocalEngine({"model": ModelSpec(str(checkpoint))}, load=die)
    engine.load("model")
    (died,) = [event for event in settle(engine, Died) if isinstance(event, Died)]
    assert "device lost" in died.message
    while engine.alive():
        time.sleep(0.001)


def test_cancelling_a_queued_run_never_starts_it(engine: LocalEngine) -> None:
    first = engine.submit(Request(PROMPT, strategy="top_p", max_length=100_000))
    second = engine.submit(Request(PROMPT, strategy="greedy", max_length=5))
    engine.cancel(second)
    engine.cancel(first)
    ends: dict[int, Finished | Failed] = {}
    while len(ends) < 2:
        for event in engine.poll():
            assert not (isinstance(event, TokenBatch) and event.run == second)
            if isinstance(event, Finished | Failed) and event.run is not None:
                ends[event.run] = event
    assert isinstance(ends[second], Finished)
    assert ends[second].reason == "cancelled"


def test_cancelling_one_run_leaves_the_others(engine: LocalEngine) -> None:
    first = engine.submit(Request(PROMPT, strategy="top_p", max_length=20, seed=1))
    second = engine.submit(Request(PROMPT, strategy="top_p", max_length=20, seed=1))
    engine.cancel(second)
    ends: dict[int, Finished] = {}
    while len(ends) < 2:
        ends |= {event.run: event for event in engine.poll() if isinstance(event, Finished)}
    assert (ends[first].reason, ends[second].reason) == ("length", "cancelled")


needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


def _generation(spec: ModelSpec, strategy: str) -> Generation:
    loaded = load(spec, lambda done, total: None, lambda: False)
    decoder = decoders.find(strategy)
    models = dict.fromkeys(decoder.roles, loaded)
    return Generation(
        plan_run(Request(PROMPT, strategy, seed=1, max_length=40), decoder, models, lambda: False)
    )


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("strategy", [decoder.name for decoder in decoders.strategies()])
def test_no_step_waits_for_the_device(checkpoint: Path, strategy: str) -> None:
    generation = _generation(ModelSpec(str(checkpoint), device="cuda:0"), strategy)
    generation.prefill(PrefixCache(), lambda done, total: None, lambda: False)
    generation.launch()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            generation.launch()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    while not generation.runner.ring.empty:
        generation.runner.ring.read(wait=True)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("strategy", [decoder.name for decoder in decoders.strategies()])
def test_the_gpu_says_what_the_cpu_says(
    open_engine: Callable[..., LocalEngine], checkpoint: Path, strategy: str
) -> None:
    tokens = []
    for device in ("cpu", "cuda:0"):
        engine = open_engine()
        for role in ("model", "amateur", "draft"):
            engine.assign(role, ModelSpec(str(checkpoint), precision="float32", device=device))
        seen = watch(engine, Request(PROMPT, strategy=strategy, seed=3, max_length=40))
        tokens.append(seen.finished.answer or tuple(seen.ids))
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("stop", [(), ("e",)])
def test_samples_share_a_batch_and_nothing_else(engine: LocalEngine, stop: tuple[str, ...]) -> None:
    """Each row has its own luck, its own end and its own text; the first is what a lone run writes."""
    request = Request(PROMPT, strategy="top_p", values={"temperature": 2.0}, max_length=24, seed=3, stop=stop)
    alone = _texts(watch(engine, request).events, 1)
    events = watch(engine, replace(request, samples=3)).events
    texts = _texts(events, 3)
    assert texts[0] == alone[0]
    assert len(set(texts)) == 3
    (finished,) = (event for event in events if isinstance(event, Finished))
    assert len(finished.reasons) == 3
    assert finished.new_tokens >= sum(len(b) for b in events if isinstance(b, TokenBatch))
    assert all("e" not in text for text in texts if stop)


def test_a_search_returns_one_answer(engine: LocalEngine) -> None:
    events = watch(engine, Request(PROMPT, strategy="beam", samples=2)).events
    assert [e.field for e in events if isinstance(e, Failed)] == ["samples"]


def _texts(events: list[Event], rows: int) -> list[str]:
    """Each row's text; indices of a row must follow one another."""
    texts = [""] * rows
    steps: list[list[int]] = [[] for _ in range(rows)]
    for event in events:
        if isinstance(event, TokenBatch):
            for row, step, text in zip(event.row, event.step, event.text, strict=True):
                texts[row] += text
                steps[row].append(int(step))
    assert all(indices == list(range(len(indices))) for indices in steps)
    return texts
