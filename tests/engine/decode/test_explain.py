"""An explanation says of every token of a run why it was taken, in numbers that a reader can add up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, isnan
from pathlib import Path

import pytest

from edge_tui.engine.events import Explained, Failed
from edge_tui.engine.explanation import Explanation
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Question, Request
from tests.engine.watch import Watched, watch
from tests.waiting import until

PROMPT = tuple(range(40, 60))


def ask(engine: LocalEngine, question: Question) -> Explanation | Failed:
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


def explain(engine: LocalEngine, request: Request, run: Watched, index: int, **more: object) -> Explanation:
    """Asks about a token of a run of one row."""
    logps = tuple(zip(run.column("raw_logp"), run.column("final_logp"), strict=True))
    asked = replace(request, prefix=tuple(run.ids[:index]), prefix_logps=logps[:index])
    answer = ask(engine, replace(Question(asked, run.ids[index]), **more))
    assert isinstance(answer, Explanation), answer
    return answer


def check(explanation: Explanation) -> None:
    """Adds up the numbers of an explanation of a token that was drawn."""
    own = explanation.candidates[0]
    assert own.id == explanation.token == explanation.winner
    for each in explanation.candidates:
        gone = [i for i, logp in enumerate(each.logps) if logp == -inf]
        assert each.removing_stage == (gone[0] if gone else -1)
        assert gone == list(range(each.removing_stage, len(each.logps)) if gone else ())
        assert each.sum == -inf if gone else abs(each.logps[-1] + each.luck - each.sum) < 1e-4
    left = len(explanation.stages) and explanation.stages[0].kept + explanation.stages[0].removed
    for stage in explanation.stages:
        assert stage.kept + stage.removed == left
        assert (stage.mass > 0) == (stage.removed > 0)
        left = stage.kept
    assert left == explanation.candidate_count
    sums = sorted((each.sum for each in explanation.candidates), reverse=True)
    assert own.sum == sums[0]
    assert abs(sums[0] - sums[1] - explanation.margin) < 1e-4 or left == 1


@pytest.mark.parametrize("strategy", ["top_k", "top_p", "min_p", "typical"])
def test_the_token_taken_has_the_best_sum(
    strategy: str, checkpoint: Path, open_engine: Callable[..., LocalEngine]
) -> None:
    engine = open_engine(model=checkpoint)
    request = Request("", strategy, {"temperature": 1.3}, seed=11, ids=PROMPT, max_length=24)
    run = watch(engine, request)
    for index, token in enumerate(run.ids):
        explanation = explain(engine, request, run, index)
        assert explanation.token == token
        check(explanation)
        assert isnan(explanation.stages[0].edge)
