"""Links at neutral values are left out of a step; a change that brings one in waits for the steps before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import Output, numbers
from edge_tui.engine.decode import step_runner
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.param_table import ParamTable
from edge_tui.engine.decode.step_runner import StepRunner
from edge_tui.engine.decode.stream_groups import StreamGroup
from edge_tui.engine.events import TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.loader import LoadedModel, load
from edge_tui.engine.ops.choose_plan import idle_links, plan
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.watch import Watched, watch

CHAIN = "penalties+temperature+xtc+top_n_sigma+min_p"
XTC, SIGMA, CUT = 2, 3, 4
"""Numbers of links."""
NEUTRAL = {"xtc_probability": 0.0, "xtc_threshold": 1.0, "top_n_sigma": 0.0, "min_p": 0.0}
PROMPT = "the quick brown fox"


def make_table() -> ParamTable:
    decoder = decoders.find(CHAIN)
    values = {param.name: NEUTRAL.get(param.name, param.default) for param in numbers(decoder.params)}
    return ParamTable(
        decoder.params, values, rows=1, device="cpu", idle=lambda values: idle_links(decoder, values)
    )


def test_a_change_that_brings_a_link_in_is_held_back_with_those_after_it() -> None:
    table = make_table()
    assert table.params.left_out == {XTC, SIGMA, CUT}
    table.set("temperature", 0.5)  # the kernels have it in any case
    assert not table.waiting
    table.set("top_n_sigma", 1.0)
    table.set("temperature", 0.7)
    table.refresh()
    assert table.waiting
    assert float(table.params["temperature"]) == 0.5
    assert table.version_row.tolist() == [1.0]
    assert table.params.left_out == {XTC, SIGMA, CUT}
    table.publish()
    table.refresh()
    assert not table.waiting
    assert float(table.params["temperature"]) == pytest.approx(0.7)
    assert table.version_row.tolist() == [3.0]
    assert table.params.left_out == {XTC, CUT}


def test_a_change_back_is_held_back_as_well_and_a_new_run_begins_at_once() -> None:
    table = make_table()
    table.set("min_p", 0.5)
    table.publish()
    table.set("min_p", 0.6)
    assert not table.waiting
    table.set("min_p", 0.0)
    assert table.waiting
    assert table.params.left_out == {XTC, SIGMA}
    table.restart({**{name: float(view) for name, view in table.params.items()}, "xtc_probability": 0.2})
    assert not table.waiting
    assert table.params.left_out == {SIGMA, CUT}


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> list[frozenset[int]]:
    """Leaves links out on a CPU as on a GPU; lists those left out by each step."""
    seen: list[frozenset[int]] = []
    launch = Generation.launch

    def watched(generation: Generation) -> None:
        launch(generation)
        seen.append(generation.runner.table.params.left_out)

    monkeypatch.setattr(Generation, "launch", watched)
    monkeypatch.setattr(StepRunner, "may_leave_out", lambda runner: True)
    return seen


@pytest.fixture
def engine(open_engine: Callable[..., LocalEngine], checkpoint: Path) -> LocalEngine:
    engine = open_engine()
    engine.assign("model", ModelSpec(str(checkpoint), precision="float32", device="cpu"))
    return engine


def turned_on_the_way(engine: LocalEngine) -> Watched:
    """Cuts down to the likeliest token after some tokens."""
    turned: list[int] = []

    def turn(run: int, events: list[Any]) -> None:
        if not turned and any(hasattr(event, "raw_logp") for event in events):
            turned.append(run)
            engine.set(run, "top_n_sigma", 10.0)
            engine.set(run, "min_p", 1.0)

    return watch(engine, Request(PROMPT, CHAIN, NEUTRAL, seed=4, max_length=150), during=turn)


def test_a_turned_parameter_holds_from_the_recorded_token_on(
    engine: LocalEngine, everywhere: list[frozenset[int]]
) -> None:
    for _ in range(20):  # a tiny model may have ended its text before the change comes
        everywhere.clear()
        if (seen := turned_on_the_way(engine)).changes:
            break
    first, last = seen.changes[0].index, seen.changes[-1].index
    finals = seen.column("final_logp")
    assert finals[last:] == pytest.approx([0.0] * len(finals[last:]), abs=1e-5)
    assert min(finals[:first]) < -0.1
    used = everywhere[: len(finals)]
    assert set(used[:first]) == {frozenset({XTC, SIGMA, CUT})}
    assert set(used[last:]) == {frozenset({XTC})}


def test_kernels_take_the_place_of_a_step_whatever_is_left_out(
    engine: LocalEngine, everywhere: list[frozenset[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same tokens and numbers, also of a stage that learns beside the next forward."""
    choose = pytest.importorskip("edge_tui.engine.ops.triton.choose")
    if torch.cuda.is_available():
        pytest.skip("kernels are not interpreted here")
    made = []

    def fused_step(decoder: Any, width: int, chosen: Any, parent: Any, left_out: Any) -> Any:
        how = plan(decoder, left_out)
        assert how is not None
        made.append(left_out)
        return choose.FusedChoice(how, decoder, width, chosen)

    monkeypatch.setattr(step_runner, "TracedChoice", lambda *_: None)  # as on a GPU
    values = {name: value for name, value in NEUTRAL.items() if name != "top_n_sigma"}
    name = "xtc+dry+penalties+temperature+min_p+mirostat"
    request = Request(PROMPT, name, values, seed=9, max_length=5)
    plain = watch(engine, request)
    monkeypatch.setattr("edge_tui.engine.decode.step_runner.fused_step", fused_step)
    engine.unload("model")
    fused = watch(engine, request)
    assert made == [frozenset({0, 4})]
    assert fused.ids == plain.ids
    for column in ("final_logp", "raw_logp", "margin"):
        assert fused.column(column) == pytest.approx(plain.column(column), abs=1e-4, nan_ok=True), column
    assert bounds(fused) == pytest.approx(bounds(plain), abs=1e-4)


def bounds(seen: Watched) -> list[float]:
    """Lists what mirostat has learnt after each token."""
    return [float(value) for batch in seen.all(TokenBatch) for value in batch.extras[:, 0]]


def test_a_kept_graph_gets_the_logits_that_its_choice_reads(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie where it was captured, and the steps since then wrote theirs elsewhere."""
    model = load(ModelSpec(str(checkpoint), device="cpu")).model
    decoder = decoders.find(CHAIN)
    values = {param.name: NEUTRAL.get(param.name, param.default) for param in numbers(decoder.params)}
    group = StreamGroup(("model",), model, model.open(1, 16, 16), 1)
    runner = StepRunner(decoder, [group], values, 1, (), 64)
    runner.outputs = {"model": Output(torch.full((1, 1, 64), 1.0))}
    monkeypatch.setattr(Replays, "made", [], raising=False)
    runner.graphs = graphs = Replays(runner)
    runner.outputs = {"model": Output(torch.full((1, 1, 64), 2.0))}
    runner.publish()
    assert runner.outputs == graphs.outputs
    assert set(graphs.outputs["model"].logits.flatten().tolist()) == {2.0}


class Replays:
    """Stands for graphs on a CPU: their choice reads logits of their own, which their forward writes."""

    made: list[frozenset[int]]

    def __init__(self, runner: StepRunner) -> None:
        self._runner, self._left_out = runner, runner.table.params.left_out
        self.made.append(self._left_out)
        self.outputs = {name: Output(out.logits.clone()) for name, out in runner.outputs.items()}
        runner.outputs = dict(self.outputs)

    def replay(self, alone: bool) -> None:
        """Issues one step, as `Graphs` does: with the parameters that were refreshed behind the last one."""
        runner = self._runner
        assert runner.table.params.left_out == self._left_out
        if not runner.logits_current:
            self.forward()
        runner.logits_current = not alone
        runner.sample(keep_logits=True)
        if not alone:
            self.forward()
        runner.ring.write(*runner.build_record())
        runner.table.refresh()

    def forward(self) -> None:
        """Writes the next logits where its choice reads them, whatever other steps did meanwhile."""
        for group in self._runner.groups:
            output = group.model.forward(group.context, group.spread(self._runner.tokens))
            for name, part in group.split(output).items():
                self.outputs[name].logits.copy_(part.logits)


def capturable(spec: ModelSpec, *rest: Any) -> LoadedModel:
    loaded = load(spec, *rest)
    loaded.model.caps = replace(loaded.model.caps, capture=True)
    return loaded


TURNS = {
    8: ("min_p", 0.3),
    14: ("top_n_sigma", 0.5),
    20: ("min_p", 0.0),
    27: ("top_n_sigma", 0.0),
    33: ("min_p", 0.3),
}


@pytest.mark.parametrize("seed", [1, 9])
def test_graphs_of_several_sets_of_links_take_turns(
    seed: int, checkpoint: Path, everywhere: list[frozenset[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokens of steps that were never captured, in a run and in those after it, which find graphs."""
    launch = Generation.launch

    def turned(generation: Generation) -> None:
        if generation.launched in TURNS:
            generation.runner.table.set(*TURNS[generation.launched])
        launch(generation)

    monkeypatch.setattr(Generation, "launch", turned)
    monkeypatch.setattr(step_runner, "TracedChoice", lambda *_: None)  # as on a GPU
    monkeypatch.setattr("edge_tui.engine.decode.cuda_graphs.Graphs", Replays)
    monkeypatch.setattr(Replays, "made", [], raising=False)
    spec = ModelSpec(str(checkpoint), precision="float32", device="cpu")
    request = Request(PROMPT, CHAIN, NEUTRAL, seed=seed, max_length=50)
    runs: list[list[Watched]] = []
    for loader in (load, capturable):
        engine = LocalEngine({"model": spec}, loader)
        runs.append([watch(engine, replace(request, seed=each)) for each in (seed, seed, seed + 1)])
        assert engine.close(60.0)
    for plain, captured in zip(*runs, strict=True):
        assert captured.ids == plain.ids
        assert [each.index for each in captured.changes] == [each.index for each in plain.changes]
        assert captured.column("margin") == pytest.approx(plain.column("margin"), nan_ok=True)
    assert len(Replays.made) == len(set(Replays.made)) == 4, "each was captured once"
