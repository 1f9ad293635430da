"""A choice as one compiled call: the same tokens and numbers, and nobody waited for in between."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from edge_tui import decoders
from edge_tui.decoders.base import ByteTokenizer, numbers, texts
from edge_tui.decoders.greedy import Greedy
from edge_tui.decoders.min_p import MinP
from edge_tui.decoders.registry.sampling import Sampling
from edge_tui.engine.decode import cpu_trace
from edge_tui.engine.decode.cpu_trace import TracedChoice
from edge_tui.engine.decode.generation import Generation
from edge_tui.engine.decode.layer_needs import resolve_needs
from edge_tui.engine.decode.prefix_cache import PrefixCache
from edge_tui.engine.decode.prompt import Prompt
from edge_tui.engine.decode.resolve import ResolvedParams
from edge_tui.engine.decode.run_plan import RunPlan
from edge_tui.engine.models.loader import load
from edge_tui.engine.ops.cpu.torchscript import trace
from edge_tui.engine.port import ModelSpec, Request
from tests.engine.random_checkpoints import make_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edge_tui.decoders.base import Decoder
    from edge_tui.engine.models.base import LanguageModel

STEADY = [d.name for d in decoders.strategies() if d.num_draft_tokens({}) == 0]
TURNED = {
    "temperature": 0.8,
    "repetition_penalty": 1.3,
    "presence_penalty": 0.4,
    "frequency_penalty": 0.2,
    "do_sample": 1.0,
    "top_k": 40.0,
    "top_p": 0.8,
    "min_p": 0.05,
    "sample": 1.0,
}
STEPS = 16
Records = list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


@cache
def model(folder: Path, vocab: int) -> LanguageModel:
    path = make_checkpoint(folder / str(vocab), vocab=vocab, std=0.1)
    return load(ModelSpec(str(path), device="cpu"), lambda done, total: None, lambda: False).model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traced")


def generation(
    decoder: Decoder, one: LanguageModel, turned: Mapping[str, float], samples: int = 1, eos: int = 7
) -> Generation:
    values = {p.name: turned.get(p.name, p.default) for p in numbers(decoder.params)}
    tokenizer = SimpleNamespace(end_ids=(eos,))
    loaded: Any = SimpleNamespace(model=one, tokenizer=tokenizer, strategy_tokenizer=ByteTokenizer())
    plan = RunPlan(
        request=Request("", decoder.name),
        decoder=decoder,
        models=dict.fromkeys(decoder.roles, loaded),
        prompt=Prompt([5, 6, 5, 9]),
        params=ResolvedParams(values, {}, 3, {p.name: p.default for p in texts(decoder.params)}),
        rows=decoder.rows(values) * samples,
        num_draft_tokens=0,
        max_new=STEPS,
        width=one.info.vocab - 3,
        notices=(),
        needs=resolve_needs(decoder, values, one),
    )
    made = Generation(plan)
    made.prefill(PrefixCache(), lambda done, total: None, lambda: False)
    return made


def records(of: Generation, turn: Callable[[Generation, int], None] = lambda g, i: None) -> Records:
    """Collects the record of every step; `turn` is called before each."""
    seen: Records = []
    for i in range(STEPS):
        turn(of, i)
        of.launch()
        seen += [(ints.copy(), floats.copy()) for ints, floats in of.runner.ring.read(wait=True)]
    return seen


def same(a: Records, b: Records) -> bool:
    return len(a) == len(b) == STEPS and all(
        np.array_equal(x, y, equal_nan=True)
        for p, q in zip(a, b, strict=True)
        for x, y in zip(p, q, strict=True)
    )


@pytest.fixture(autouse=True)
def _from_the_second_step_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_trace, "STEPS_BEFORE_TRACE", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each call of a traced choice, whether it was one."""
    made: list[bool] = []
    original = TracedChoice.__call__

    def spy(self: TracedChoice, logits: Mapping[str, torch.Tensor]) -> Any:
        record = original(self, logits)
        made.append(record is not None)
        return record

    monkeypatch.setattr(TracedChoice, "__call__", spy)
    return made


def both(
    monkeypatch: pytest.MonkeyPatch, decoder: Decoder, run: Callable[[], Records]
) -> tuple[Records, Records]:
    """Runs the same traced, and operation by operation."""
    compiled = run()
    with monkeypatch.context() as patched:
        patched.setattr(TracedChoice, "__call__", lambda self, outs: None)
        return compiled, run()


@pytest.mark.parametrize(
    ("name", "turned", "vocab"),
    [
        *((name, TURNED, 320) for name in STEADY),
        *((name, {}, 320) for name in ("greedy", "contrastive")),
        *((name, {}, 5000) for name in ("typical", "beam")),  # long vocabularies choose otherwise
    ],
)
def test_the_same_to_the_last_bit(
    name: str,
    turned: dict[str, float],
    vocab: int,
    folder: Path,
    calls: list[bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder, one = decoders.find(name), model(folder, vocab)
    compiled, plain = both(monkeypatch, decoder, lambda: records(generation(decoder, one, turned)))
    assert calls == [True] * (STEPS - 1)
    assert same(compiled, plain)


@pytest.mark.parametrize("name", ["top_p", "typical"])
def test_rows_of_samples(name: str, folder: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, one = decoders.find(name), model(folder, 5000)
    compiled, plain = both(monkeypatch, decoder, lambda: records(generation(decoder, one, {}, samples=3)))
    assert all(calls)
    assert same(compiled, plain)
    assert len({tuple(int(ints[row, 0]) for ints, _ in compiled) for row in range(3)}) == 3


def test_parameters_turned_on_the_way(
    folder: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from neutral, to another value, and back: a trace for the first holds no other."""

    def turn(of: Generation, i: int) -> None:
        if i in (4, 7, 11):
            of.runner.table.set("temperature", {4: 0.3, 7: 2.5, 11: 1.0}[i])
            of.runner.table.set("repetition_penalty", {4: 1.0, 7: 1.8, 11: 1.0}[i])

    decoder, one = decoders.find("top_p"), model(folder, 320)
    compiled, plain = both(monkeypatch, decoder, lambda: records(generation(decoder, one, {}), turn))
    still = records(generation(decoder, one, {}))
    assert calls.count(False) == 2  # the first step of each new kind, which is inspected
    assert same(compiled, plain)
    assert not same(compiled, still)
    assert [int(ints[0, 4]) for ints, _ in compiled] == [0] * 4 + [2] * 3 + [4] * 4 + [6] * (STEPS - 11)


def test_a_step_is_written_down_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, one = Sampling(MinP()), model(folder, 320)
    made = 0

    def count(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return trace(*arguments)

    monkeypatch.setattr(cpu_trace, "trace", count)
    for turned, total in (({}, 1), ({}, 1), ({"min_p": 0.2}, 1), ({"temperature": 0.5}, 2), ({}, 2)):
        records(generation(decoder, one, turned))
        assert made == total


def test_steps_are_counted_over_runs_before_one_is_written_down(
    folder: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_trace, "STEPS_BEFORE_TRACE", STEPS + 4)
    one, decoder = model(folder, 320), Greedy()
    short, longer = records(generation(decoder, one, {})), records(generation(decoder, one, {}))
    assert calls == [False] * (STEPS - 1) + [False] * 3 + [True] * (STEPS - 4)
    assert same(short, longer)


def test_what_cannot_be_traced_runs_all_the_same(
    folder: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decoder, one = Greedy(), model(folder, 320)
    plain = records(generation(decoder, one, {}))
    calls.clear()

    def refuse(*arguments: object, **options: object) -> None:
        raise RuntimeError("no such compiler")

    monkeypatch.setattr(torch.jit, "trace", refuse)
    assert same(records(generation(Greedy(), one, {})), plain)
    assert calls == [False]  # asked once
    assert "greedy is not compiled" in caplog.text


class Steady(MinP):
    """Does the same operations whatever the numbers are, and writes to a state."""

    def init(self, env: Any) -> Any:
        return {"n": torch.zeros(env.rows, 1)}

    def apply(self, z: torch.Tensor, p: Any, s: Any, rng: Any) -> torch.Tensor:
        s["n"] += 1
        return super().apply(z, p, s, rng) / s["n"].sqrt()


def test_a_strategy_of_ones_own_is_traced_where_it_is_steady(
    folder: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, decoder = model(folder, 320), Sampling(Steady())
    compiled, plain = both(monkeypatch, decoder, lambda: records(generation(decoder, one, {})))
    assert calls == [True] * (STEPS - 1)
    assert same(compiled, plain)


def looks(z: torch.Tensor) -> bool:
    return bool(z.amax() > 0)


LOOKS: dict[str, Callable[[torch.Tensor], bool]] = {
    "always": looks,
    "at what is rare": lambda z: bool(z.amax() > 1e6),
    "on a CPU alone": lambda z: z.device.type == "cpu" and looks(z),
    "by numpy": lambda z: z.device.type == "cpu" and float(z.numpy().max()) > 0,
    "at a number": lambda z: z.device.type == "cpu" and z.argmax().item() > 160,
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_strategy_that_looks_at_numbers_is_not_traced(
    look: str, folder: Path, calls: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Looks(MinP):
        def apply(self, z: torch.Tensor, p: Any, s: Any, rng: Any) -> torch.Tensor:
            return super().apply(z, p, s, rng) if LOOKS[look](z) else z

    one, decoder = model(folder, 320), Sampling(Looks())
    compiled, plain = both(monkeypatch, decoder, lambda: records(generation(decoder, one, {})))
    assert calls == [False]  # asked once
    assert same(compiled, plain)


@pytest.mark.parametrize(("kept", "traced"), [(3, 3), (2, 4)])
def test_of_many_kinds_of_steps_the_newest_traces_are_kept(
    kept: int, traced: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def notes(name: str, *given: Any) -> Any:
        written.append(name)
        return trace(name, *given)

    monkeypatch.setattr(cpu_trace, "TRACES_KEPT", kept)
    monkeypatch.setattr(cpu_trace, "trace", notes)
    one, decoder = model(folder, 320), Sampling(MinP())
    for rows in (1, 2, 3, 1):
        records(generation(decoder, one, {}, samples=rows))
    assert len(written) == traced
