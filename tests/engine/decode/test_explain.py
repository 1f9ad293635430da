"""An explanation says of every token of a run why it was taken, in numbers that a reader can add up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice
from math import exp, inf, isnan

import pytest

from edge_tui import decoders
from edge_tui.decoders.base import Decoder
from edge_tui.engine.events import Event, Explained, Failed, Finished, TokenBatch
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Question, Request
from tests.engine.decode.explained_runs import PROMPT, SAMPLERS, make_models, request_of
from tests.engine.decode.explaining import add_up, ask, explain, question_at
from tests.engine.random_checkpoints import TOKENS
from tests.engine.watch import Watched, watch
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


def forced(engine: LocalEngine, request: Request, run: Watched, index: int, strategy: str) -> int:
    """Lets another strategy take the token at a position of a run."""
    other: Decoder = decoders.find(strategy)
    names = {param.name for param in other.params}
    values = {name: value for name, value in request.values.items() if name in names}
    asked = question_at(request, run, index).request
    return watch(engine, replace(asked, strategy=strategy, values=values, max_length=1)).ids[0]


def test_others_take_what_they_take_in_a_run_that_goes_on(engine: LocalEngine) -> None:
    names = [name for name in SAMPLERS if len(decoders.find(name).streams) == 1]
    request = request_of("top_k", 12)
    run = watch(engine, request)
    told: set[str] = set()
    for index in (0, 5, 11):
        why = explain(engine, request, run, index, others=tuple(names))
        for other in why.others:
            assert other.id == forced(engine, request, run, index, other.strategy), other
            told.add(other.strategy)
    learners = {name for name in names if decoders.find(name).learns}
    layered = {"dola"}
    assert told == set(names) - learners - layered - {"top_k"}
    digits = [each.name for each in decoders.strategies()[:9]]
    assert [other.strategy for other in explain(engine, request, run, 3).others] == [
        name for name in digits if name in told
    ]


def test_a_learner_is_explained_where_its_numbers_are_not_known(engine: LocalEngine) -> None:
    request = request_of("mirostat", 12)
    run = watch(engine, request)
    question = question_at(request, run, 9)
    known, unknown = (
        ask(engine, question),
        ask(engine, replace(question, request=replace(question.request, prefix_logps=()))),
    )
    assert isinstance(known, Explanation)
    assert isinstance(unknown, Explanation)
    add_up(unknown)
    assert unknown.stages[-1].edge == pytest.approx(known.stages[-1].edge, abs=1e-3)


def test_a_sample_of_several_is_explained_by_its_own_seed(engine: LocalEngine) -> None:
    request = replace(request_of("top_p", 12), samples=3)
    run = watch(engine, request)
    for row in range(3):
        for index in (0, 11):
            why = ask(engine, question_at(request, run, index, row))
            assert isinstance(why, Explanation)
            add_up(why)


def test_asked_tokens_and_the_likeliest_are_followed(engine: LocalEngine) -> None:
    request = request_of("top_k", 3)
    why = explain(engine, request, watch(engine, request), 2, ids=(250, 251))
    assert {250, 251} <= {each.id for each in why.candidates}
    ranks = {each.rank for each in why.candidates}
    assert set(range(20)) <= ranks
    cut = next(stage for stage in why.stages if stage.name == "top_k")
    assert (cut.criterion, cut.edge, cut.kept) == ("rank", 50, 50)
    place = why.stages.index(cut)
    for each in why.candidates:
        assert each.criteria[place] == each.rank + 1
        assert (each.removing_stage == place) == (each.rank >= 50)


def test_the_twenty_best_sums_are_followed_whatever_their_rank(engine: LocalEngine) -> None:
    request = replace(request_of("top_p", 3), values={"top_p": 1.0, "temperature": 4.0})
    run = watch(engine, request)
    why = explain(engine, request, run, 2)
    whole = explain(engine, request, run, 2, ids=tuple(range(TOKENS)))
    assert len(whole.candidates) == TOKENS == why.candidate_count
    best = sorted(whole.candidates, key=lambda each: each.sum, reverse=True)[:20]
    assert any(each.rank >= 20 for each in best[5:])
    assert {each.id for each in best} <= {each.id for each in why.candidates}


def test_the_mass_of_a_cut_is_that_of_the_distribution_before_it(engine: LocalEngine) -> None:
    request = Request("", "top_k", {"top_k": 5, "temperature": 2.0}, seed=5, ids=PROMPT, max_length=2)
    why = explain(engine, request, watch(engine, request), 1)
    place = next(i for i, stage in enumerate(why.stages) if stage.name == "top_k")
    left = [each for each in why.candidates if each.removing_stage < 0]
    assert len(left) == 5
    assert why.stages[place].mass == pytest.approx(1 - sum(exp(each.logps[place - 1]) for each in left))
    assert why.stages[place].mass != pytest.approx(1 - sum(exp(each.raw_logp) for each in left), abs=0.01)


@pytest.mark.parametrize(
    ("strategy", "values", "sentence"),
    [
        ("greedy", {}, "was the likeliest, and nothing is drawn."),
        ("top_p", {"temperature": 0.0}, "was the likeliest, and nothing is drawn."),
        ("top_k", {"top_k": 1}, "was left: top-k 1 cut the rest."),
        ("top_k", {"temperature": 3.0}, "50 tokens were left;"),
        ("contrastive", {}, "had the best score, and nothing is drawn."),
        ("beam", {}, "continues a hypothesis that was among the best"),
        ("contrastive_search", {}, "the best of them when they were weighed a step later."),
    ],
)
def test_one_sentence_says_why(
    strategy: str, values: dict[str, float], sentence: str, engine: LocalEngine
) -> None:
    request = Request("", strategy, values, seed=5, ids=PROMPT, max_length=3)
    run = watch(engine, request)
    why = explain(engine, request, run, 1)
    assert sentence in why.sentence
    assert why.drawn == ("tokens were left" in why.sentence)
    if decoders.find(strategy).kind == "search":
        assert why.note
        assert isnan(why.margin)
    else:
        assert why.note == ""
        assert why.margin == inf if values.get("top_k") == 1 else 0 < why.margin < inf


CRITERIA = {
    "top_p": "Σp",
    "min_p": "p/p₁",
    "typical": "|s−H|",
    "top_n_sigma": "σ",
    "top_h": "ΣH",
    "top_a": "p",
    "epsilon": "p",
    "eta": "p",
    "p_less": "p",
    "tfs": "p",
    "mirostat": "bits",
    "contrastive": "p/p₁",
    "dola": "p/p₁",
}


@pytest.mark.parametrize("strategy", CRITERIA)
def test_a_stage_tells_the_number_by_which_it_decided(strategy: str, engine: LocalEngine) -> None:
    request = request_of(strategy, 3)
    why = explain(engine, request, watch(engine, request), 2, ids=tuple(range(100, 140)))
    place, cut = next((i, stage) for i, stage in enumerate(why.stages) if stage.name == strategy)
    assert cut.criterion == CRITERIA[strategy]
    own = {each.id: each.criteria[place] for each in why.candidates}
    left = {each.id for each in why.candidates if each.removing_stage < 0}
    assert left
    assert cut.removed
    # Tokens up to the edge stay, in the one direction or the other.
    inside = [own[token] for token in left]
    outside = [own[token] for token in own.keys() - left]
    least, most = min(inside) >= cut.edge - 1e-5, max(inside) <= cut.edge + 1e-5
    assert least or most
    assert all(value < cut.edge + 1e-5 for value in outside) if least else True
    assert all(value > cut.edge - 1e-5 for value in outside) if most else True


def test_a_proposal_is_told_with_what_became_of_it(engine: LocalEngine) -> None:
    request = request_of("speculative", 40)
    run = watch(engine, request)
    names = run.started.columns
    verdicts = set()
    for index in range(40):
        extras = run.column("extras")[index]
        recorded = {name: float(value) for name, value in zip(names, extras, strict=True)}
        why = explain(engine, request, run, index, recorded=recorded)
        assert why.winner == why.token, why.sentence
        if recorded["drafted"]:
            verdicts.add("accepted")
            assert "the model accepted it" in why.sentence
        elif recorded["rejected"] >= 0:
            verdicts.add("rejected")
            assert "the model rejected it" in why.sentence
            assert "rejected" in dict(why.facts)
        else:
            verdicts.add("none")
            add_up(why)
            assert why.drawn
        assert ("p/q" in dict(why.facts)) == ("model" in why.sentence)
    assert verdicts == {"accepted", "rejected", "none"}
    first, second = (explain(engine, request, run, index) for index in (0, 1))  # without a record
    assert first.drawn  # nothing is proposed in front of it
    assert second.winner == second.token
    assert ("p/q" in dict(second.facts)) == ("verdict" in dict(second.facts))


@pytest.mark.parametrize("strategy", ["beam", "diverse_beam", "stochastic_beam", "contrastive_search"])
def test_a_search_tells_what_was_recorded(strategy: str, engine: LocalEngine) -> None:
    request = replace(request_of(strategy, 3), values={})
    run = watch(engine, request)
    recorded = {"parent": 1.0, decoders.find(strategy).all_columns[0].name: -4.5}
    why = explain(engine, request, run, 1, recorded=recorded)
    assert dict(why.facts) == {"parent": "row 2", decoders.find(strategy).all_columns[0].name: "-4.5"}
    assert (why.drawn, why.winner) == (False, why.token)
    assert all(isnan(each.luck) for each in why.candidates)
    assert why.note


def test_a_token_that_was_put_there_is_not_explained_away(engine: LocalEngine) -> None:
    request = request_of("top_k", 3)
    run = watch(engine, request)
    question = question_at(request, run, 1)
    likeliest = explain(engine, request, run, 1).candidates
    other = next(each.id for each in likeliest if each.id != question.token)
    why = ask(engine, replace(question, token=other))
    assert isinstance(why, Explanation)
    assert (why.token, why.winner) == (other, question.token)
    assert "computed again" in why.sentence
    assert why.note


REFUSALS = {
    "model": ("wrote this, but", {"model": "another"}),
    "token": ("token id", {"token": 100_000}),
    "ids": ("token id", {"ids": (-1,)}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_question_that_fits_no_model_is_refused(name: str, engine: LocalEngine) -> None:
    sentence, changes = REFUSALS[name]
    request = request_of("top_k", 2)
    answer = ask(engine, replace(question_at(request, watch(engine, request), 1), **changes))
    assert isinstance(answer, Failed)
    assert answer.code == "cannot_explain"
    assert sentence in answer.message


CHANGES: dict[str, tuple[str, dict[str, object]]] = {
    "seed": ("seed", {"seed": None}),
    "strategy": ("no strategy", {"strategy": "no_such"}),
    "parameter": ("no parameter", {"values": {"nothing": 1}}),
    "prompt": ("the context holds", {"ids": tuple(islice(cycle(PROMPT), 1300))}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_request_that_cannot_be_computed_again_is_refused(name: str, engine: LocalEngine) -> None:
    sentence, changes = CHANGES[name]
    request = request_of("top_k", 2)
    question = question_at(request, watch(engine, request), 1)
    answer = ask(engine, replace(question, request=replace(question.request, **changes)))
    assert isinstance(answer, Failed)
    assert answer.code == "cannot_explain"
    assert sentence in answer.message


def test_no_question_loads_a_model(open_engine: Callable[[], LocalEngine]) -> None:
    engine = open_engine()
    answer = ask(engine, Question(request_of("contrastive", 2), 60))
    assert isinstance(answer, Failed)
    assert answer.code == "cannot_explain"
    assert "not loaded" in answer.message
    assert engine.loaded() == {}


def test_a_question_waits_for_the_run_before_it_and_can_be_taken_back(engine: LocalEngine) -> None:
    short = request_of("top_p", 2)
    question = question_at(short, watch(engine, short), 1)
    run = engine.submit(request_of("top_p", 1000))
    answered, taken_back = engine.explain(question), engine.explain(question)
    engine.cancel(taken_back)
    events: list[Event] = []
    until(lambda: events.extend(engine.poll()) or any(isinstance(each, TokenBatch) for each in events))
    engine.cancel(run)
    until(lambda: events.extend(engine.poll()) or any(isinstance(each, Failed) for each in events))
    ends = [each for each in events if isinstance(each, Finished | Explained | Failed)]
    assert [type(each) for each in ends] == [Finished, Explained, Failed]
    assert isinstance(ends[1], Explained)
    assert ends[1].question == answered
    assert isinstance(ends[2], Failed)
    assert (ends[2].run, ends[2].code) == (taken_back, "cancelled")
