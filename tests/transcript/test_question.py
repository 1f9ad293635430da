from __future__ import annotations

from dataclasses import replace

import pytest

from edge_tui.decoders.base import Column
from edge_tui.engine import seeds
from edge_tui.engine.events import Finished, ParamChanged, Resolved, Started
from edge_tui.engine.port import Request
from edge_tui.transcript.question import question_of
from edge_tui.transcript.transcript import Transcript
from tests.transcript.test_transcript import batch, line

REQUEST = Request("the prompt", "top_p", {"top_p": 0.5}, mode="exploratory", seed=None, max_length=9)


def begun(strategy: str = "top_p", rows: int = 1, prefix: int = 0, **values: float) -> Started:
    resolved = {name: Resolved(value, "user") for name, value in values.items()}
    return Started(1, strategy, rows, (), 5, prefix, 0, 9, 40, resolved)


def test_the_prefix_ends_before_the_token_and_the_seed_is_the_one_in_use() -> None:
    transcript = Transcript(begun(top_p=0.5, temperature=1.5))
    transcript.extend(line([3, 1, 4]))
    question = question_of(transcript, replace(REQUEST, samples=1), 1, ids=(9,), others=("greedy",))
    assert (question.token, question.ids, question.others) == (1, (9,), ("greedy",))
    asked = question.request
    assert (asked.prompt, asked.prefix, asked.seed) == ("the prompt", (3,), 40)
    # The temperature is a value by now; the mode must not set it again over a later change.
    assert (asked.values, asked.mode) == ({"top_p": 0.5, "temperature": 1.5}, "custom")


@pytest.mark.parametrize(("index", "value"), [(0, 0.5), (1, 0.5), (2, 0.8), (3, 0.9)])
def test_the_values_are_those_that_held_at_the_token(index: int, value: float) -> None:
    transcript = Transcript(begun(top_p=0.5))
    transcript.extend(line([3, 1, 4, 1]))
    transcript.change(ParamChanged(1, "top_p", 0.8, 1, 2))
    transcript.change(ParamChanged(1, "top_p", 0.9, 2, 3))
    assert question_of(transcript, REQUEST, index).request.values == {"top_p": value}


def test_each_sample_is_the_run_of_its_own_seed() -> None:
    transcript = Transcript(begun(rows=3), prefix=(8,))
    tokens = [(1, 0, 0, 3, "a"), (1, 1, 1, 4, "b"), (1, 2, 2, 5, "c"), (2, 1, 1, 6, "d"), (2, 2, 2, 7, "e")]
    transcript.extend(batch(tokens))
    request = replace(REQUEST, samples=3, prefix=(8,))
    question = question_of(transcript, request, 2, row=1)
    assert (question.token, question.request.prefix) == (6, (8, 4))
    assert (question.request.seed, question.request.samples) == (seeds.of_sample(40, 1), 1)
    assert question_of(transcript, request, 0, row=2).token == 8
    with pytest.raises(IndexError, match="Token 2 was asked for, but the transcript has 2"):
        question_of(transcript, request, 2, row=0)
    with pytest.raises(IndexError, match="Row 3 was asked for, which the run does not have"):
        question_of(transcript, request, 0, row=3)


@pytest.mark.parametrize("role", ["sum", ""])
def test_of_a_search_the_answer_is_asked_for(role: str) -> None:
    details = (Column("score", role=role),)
    start = replace(begun("beam", rows=2), columns=("score",), column_details=details)
    transcript = Transcript(start)
    transcript.extend(
        batch([(0, 0, 0, 3, "a"), (0, 1, 0, 4, "b"), (1, 0, 1, 5, "c"), (1, 1, 0, 6, "d")], [(-1.0,)] * 4)
    )
    transcript.finish(Finished(1, "length", 2, 0.1, 0.1, answer=(4, 5), answer_text="bc"))
    question = question_of(transcript, replace(REQUEST, strategy="beam"), 1)
    assert (question.token, question.request.prefix, question.request.seed) == (5, (4,), 40)
    with pytest.raises(IndexError, match="Row 1"):
        question_of(transcript, REQUEST, 0, row=1)


def test_a_strategy_that_learns_is_told_what_it_learned_from() -> None:
    transcript = Transcript(begun("mirostat", mirostat_tau=3.0, mirostat_eta=0.1))
    transcript.extend(line([3, 1, 4]))
    transcript.change(ParamChanged(1, "mirostat_tau", 5.0, 1, 1))
    asked = question_of(transcript, replace(REQUEST, strategy="mirostat", values={}), 2).request
    assert [each for pair in asked.prefix_logps for each in pair] == pytest.approx([-0.3, -0.15, -0.1, -0.05])
    before, after = ({"mirostat_tau": tau, "mirostat_eta": 0.1} for tau in (3.0, 5.0))
    assert asked.prefix_values == ((0, before), (1, after))
    assert asked.values == after
