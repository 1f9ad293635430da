"""A question finds the numbers of its run where they still are, and leaves them there."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf, log
from pathlib import Path
from typing import Any

import pytest

from edge_tui.decoders.base import Params, State, Token
from edge_tui.decoders.mirostat import Mirostat
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.models.base import Context
from edge_tui.engine.models.loader import LoadedModel, load
from edge_tui.engine.port import ModelSpec
from tests.engine.decode.explained_runs import PROMPT, make_models, request_of
from tests.engine.decode.explaining import add_up, ask, explain, question_at
from tests.engine.models.test_transformers_tier import make_other
from tests.engine.random_checkpoints import save_tokenizer
from tests.engine.watch import watch
from tests.waiting import until


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSpec]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture
def open_engine(specs: dict[str, ModelSpec]) -> Iterator[Callable[[], LocalEngine]]:
    engines: list[LocalEngine] = []

    def open_one() -> LocalEngine:
        engines.append(LocalEngine(specs))
        return engines[-1]

    yield open_one
    assert all(engine.close(10.0) for engine in engines)


@pytest.fixture(scope="module")
def engine(specs: dict[str, ModelSpec]) -> Iterator[LocalEngine]:
    engine = LocalEngine(specs)
    yield engine
    assert engine.close(60.0)


def test_a_question_learns_the_tokens_since_the_last_one_alone(
    open_engine: Callable[[], LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, request = open_engine(), request_of("mirostat", 160)
    run = watch(engine, request)
    learned: list[int] = []
    observe = Mirostat.observe

    def count(stage: Mirostat, s: State, p: Params, token: Token) -> None:
        learned.append(int(token.step))
        observe(stage, s, p, token)

    monkeypatch.setattr(Mirostat, "observe", count)
    for index, since in ((150, 0), (149, 128), (151, 128), (100, 0), (101, 64), (128, 64), (128, 128)):
        learned.clear()
        add_up(explain(engine, request, run, index))
        assert learned == list(range(since, index + 1)), "the last one is the step itself"
        question = question_at(request, run, index)
        (raw, final), *others = question.request.prefix_logps
        less = replace(question.request, prefix_logps=((raw, final - 3.0), *others))
        edges = [
            ask(engine, replace(question, request=each)).stages[-1].edge for each in (question.request, less)
        ]  # type: ignore[union-attr]
        assert edges[0] - edges[1] == pytest.approx(0.1 * 3 / log(2), abs=1e-3), (
            "other numbers, another bound"
        )
        ask(engine, question)


def test_a_search_learns_all_of_its_tokens_for_each_question(
    open_engine: Callable[[], LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state holds the number of new tokens, which is another one for each."""
    engine, request = open_engine(), request_of("beam:mirostat", 80)
    run = watch(engine, request)
    learned: list[int] = []
    monkeypatch.setattr(Mirostat, "observe", lambda stage, s, p, token: learned.append(int(token.step)))
    for index in (70, 71):
        learned.clear()
        explain(engine, request, run, index)
        assert learned[:index] == list(range(index))


@pytest.mark.proof
def test_a_model_whose_contexts_cannot_resume_reads_the_text_anew(tmp_path: Path) -> None:
    path = make_other(tmp_path / "other", "bloom")
    save_tokenizer(path)
    engine = LocalEngine({"model": ModelSpec(str(path), "float32", "cpu")})
    request = replace(request_of("top_p", 8), ids=tuple(range(40, 50)))
    run = watch(engine, request)
    for index in (7, 2, 0, 7):
        why = explain(engine, request, run, index)
        add_up(why)
        assert why.epsilon > 0
    longer = replace(request, prefix=tuple(run.ids), max_length=1)
    assert watch(engine, longer).started.reused_tokens == 10 + 7
    assert engine.close(60.0)


def test_a_later_run_goes_on_where_it_would_have_without_questions(engine: LocalEngine) -> None:
    request = request_of("top_p", 40)
    run = watch(engine, request)
    for index in (39, 3, 20, 0, 39):
        explain(engine, request, run, index)
    other = request_of("min_p", 30, seed=2)
    longer = replace(request, prefix=tuple(run.ids), max_length=4)
    assert ask(engine, question_at(other, run, 7)).exactness == "own"  # type: ignore[union-attr]
    continued = watch(engine, longer)
    assert continued.started.reused_tokens == len(PROMPT) + 39
    uninterrupted = watch(engine, replace(request, max_length=44))
    assert continued.ids == uninterrupted.ids[40:]
    assert continued.column("raw_logp") == pytest.approx(uninterrupted.column("raw_logp")[40:], abs=1e-4)


@pytest.mark.parametrize("strategy", ["top_p", "mirostat"])
def test_a_question_gives_the_runs_own_numbers_while_its_context_is_there(
    strategy: str, open_engine: Callable[[], LocalEngine]
) -> None:
    one, other = open_engine(), open_engine()
    request = request_of(strategy, 30)
    run = watch(one, request)
    watch(other, replace(request, ids=(7,), max_length=1))  # loads the model
    for index in (29, 1, 12, 0):
        here, there = (explain(engine, request, run, index) for engine in (one, other))
        assert here.epsilon == 0
        assert here.candidates[0].raw_logp == pytest.approx(run.column("raw_logp")[index], abs=1e-6)
        assert 0 < there.epsilon < 0.01
        assert there.exactness == "own"
        for a, b in zip(here.candidates, there.candidates, strict=False):
            if a.id == b.id and a.sum > -inf:
                assert abs(a.sum - b.sum) < there.epsilon


def test_the_first_token_is_near_where_the_output_of_a_prompt_read_at_once_is_not_kept(
    open_engine: Callable[[], LocalEngine],
) -> None:
    one, other = open_engine(), open_engine()
    request = request_of("dola", 8)
    run = watch(other, request)
    watch(one, replace(request, strategy="greedy", values={}, max_length=1))
    assert [explain(engine, request, run, 0).epsilon > 0 for engine in (one, other)] == [True, False]


def test_a_run_opens_its_context_when_those_before_it_are_gone(specs: dict[str, ModelSpec]) -> None:
    opened: list[weakref.ref[Context]] = []
    held_at_opening: list[int] = []

    def held() -> int:
        return sum(each() is not None for each in opened)

    def load_counting(*arguments: Any) -> LoadedModel:
        loaded = load(*arguments)
        open_one = loaded.model.open

        def open_counted(*arguments: Any, **more: Any) -> Context:
            held_at_opening.append(held())
            context = open_one(*arguments, **more)
            opened.append(weakref.ref(context))
            return context

        loaded.model.open = open_counted  # type: ignore[method-assign]
        return loaded

    engine = LocalEngine({"model": specs["model"]}, load=load_counting)
    earlier, request = (replace(request_of("top_p", 8, seed), ids=(*PROMPT, seed)) for seed in (3, 4))
    first, run = watch(engine, earlier), watch(engine, request)
    explain(engine, request, run, 5)
    assert held() == 1, "a question about the last run opens no context"
    for index in (5, 2, 7):
        explain(engine, earlier, first, index)
    assert held() == 2, "one about another opens one, for all questions"
    watch(engine, request)
    until(lambda: held() == 1)  # the next run drops it; the engine's thread may hold it a moment longer
    explain(engine, earlier, first, 5)
    watch(engine, replace(request, max_length=600))
    assert held_at_opening == [0, 1, 1, 0]
    assert engine.close(60.0)
