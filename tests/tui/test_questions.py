"""One question at a time is put to the engine, and of those that wait the newest."""

from __future__ import annotations

from typing import cast

from edge_tui.engine.events import Explained, Failed, Loaded, Queued
from edge_tui.engine.port import Engine, Question, Request
from edge_tui.tui.questions import Questions
from tests.transcript.explanations import of_top_p

LOADED = Loaded("model", "m", "A", "flat", "cpu", "f32", "float32", 9, 9, 9, 9, 1.0, False)


class Asked:
    """Counts the questions that are put to it."""

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def explain(self, question: Question) -> int:
        self.tokens.append(question.token)
        return len(self.tokens)


def asking() -> tuple[Questions, Asked]:
    engine, questions = Asked(), Questions()
    questions.attach(cast("Engine", engine))
    return questions, engine


def question(token: int) -> Question:
    return Question(Request("a"), token)


def test_the_last_of_those_that_wait_is_put_next() -> None:
    questions, engine = asking()
    for token in (3, 4, 5):
        questions.ask(token, question(token))
    assert engine.tokens == [3]
    assert questions.has(3)
    assert not questions.has(4)
    assert questions.has(5)
    assert questions.apply(Explained(1, of_top_p()))
    assert engine.tokens == [3, 5]
    answer = questions.answer(3)
    assert isinstance(answer, Explained)
    assert questions.answer(5) is None


def test_an_answer_is_kept_and_never_asked_for_again() -> None:
    questions, engine = asking()
    for _ in range(2):
        questions.ask(3, question(3))
    questions.apply(Explained(1, of_top_p()))
    questions.ask(3, question(3))
    assert engine.tokens == [3]


def test_events_of_runs_are_left_alone() -> None:
    questions, _ = asking()
    questions.ask(3, question(3))
    assert not questions.apply(Queued(1))
    assert not questions.apply(Failed("No.", 7))
    assert not questions.apply(Failed("No."))
    assert questions.apply(Failed("No.", 1))


def test_another_model_is_asked_again_what_could_not_be_explained() -> None:
    questions, engine = asking()
    questions.ask(3, question(3))
    questions.apply(Failed("The model is gone.", 1, code="cannot_explain"))
    questions.ask(3, question(3))
    assert engine.tokens == [3]
    assert not questions.apply(LOADED)
    questions.ask(3, question(3))
    assert engine.tokens == [3, 3]


def test_another_engine_is_not_waited_for_in_vain() -> None:
    questions, engine = asking()
    questions.ask(3, question(3))
    questions.ask(4, question(4))
    questions.attach(cast("Engine", engine))
    assert not questions.has(3)
    questions.ask(5, question(5))
    assert engine.tokens == [3, 5]
    questions.apply(Explained(2, of_top_p()))
    questions.attach(cast("Engine", engine))
    assert questions.answer(5) is None, "its runs have the numbers of other runs now"


def test_what_waits_can_be_forgotten() -> None:
    questions, engine = asking()
    questions.ask(3, question(3))
    questions.ask(4, question(4))
    questions.leave()
    questions.apply(Explained(1, of_top_p()))
    assert engine.tokens == [3]
