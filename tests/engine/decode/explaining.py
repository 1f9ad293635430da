"""Asks engines why tokens of a run were taken, and adds up what they answer."""

from __future__ import annotations

from dataclasses import replace
from math import inf, isnan
from typing import Any

from edge_tui.engine.events import Explained, Failed
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.port import Engine, Question, Request
from tests.engine.watch import Watched
from tests.waiting import until

SUM = 1e-4
"""Nats by which sums of float32 numbers may differ from those of their parts."""


def ask(engine: Engine, question: Question) -> Explanation | Failed:
    """Asks a question and waits for its answer."""
    number, answers = engine.explain(question), list[Explanation | Failed]()

    def poll() -> bool:
        for event in engine.poll():
            if isinstance(event, Explained) and event.question == number:
                answers.append(event.explanation)
            elif isinstance(event, Failed) and event.run == number:
                answers.append(event)
        return bool(answers)

    until(poll, 60.0)
    return answers[0]


def question_at(request: Request, run: Watched, index: int, row: int = 0, **more: Any) -> Question:
    """Asks about a token of a run, as a face does that has the run's record."""
    ids = [int(token) for token in run.column("id", row)]
    logps = tuple(zip(run.column("raw_logp", row), run.column("final_logp", row), strict=True))
    before = replace(
        request,
        prefix=tuple(ids[:index]),
        prefix_logps=logps[:index],
        samples=1,
        seed=run.started.seed + row,
    )
    return Question(before, ids[index], **more)


def explain(engine: Engine, request: Request, run: Watched, index: int, **more: Any) -> Explanation:
    """Explains a token of a run of one row."""
    answer = ask(engine, question_at(request, run, index, **more))
    assert isinstance(answer, Explanation), answer
    return answer


def add_up(why: Explanation) -> None:
    """Checks an explanation of a token that was taken by the best sum, from its own numbers alone."""
    own, vocabulary = why.candidates[0], why.stages[0].kept + why.stages[0].removed if why.stages else 0
    assert own.id == why.token == why.winner, why.sentence
    assert [each.id for each in why.candidates].count(own.id) == 1
    left = vocabulary
    for stage in why.stages:
        assert stage.kept + stage.removed == left
        assert (stage.mass > 0) == (stage.removed > 0), stage
        left = stage.kept
    assert why.candidate_count == left or not why.stages
    for each in why.candidates:
        assert len(each.logps) == len(each.criteria) == len(why.stages)
        gone = [logp == -inf for logp in each.logps]
        first = gone.index(True) if True in gone else -1
        assert each.removing_stage == first
        assert first < 0 or all(gone[first:])
        if not isnan(each.luck):
            final = each.logps[-1] if each.logps else each.raw_logp
            assert each.sum == final + each.luck == -inf or abs(final + each.luck - each.sum) < SUM
    if why.drawn:
        sums = sorted((each.sum for each in why.candidates), reverse=True)
        assert own.sum == sums[0]
        assert abs(sums[0] - sums[1] - why.margin) < SUM
