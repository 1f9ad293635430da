"""Reasons of the tokens of two compared runs, without a screen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge_tui.engine.events import Explained, Failed
from edge_tui.engine.port import Request
from edge_tui.tui.pair_reasons import PairReasons
from tests.transcript.explanations import of_top_p
from tests.tui.engines import PictureEngine
from tests.tui.parts import session


class Asked(PictureEngine):
    """Notes questions, and answers none by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[Any] = []

    def explain(self, question: Any) -> int:
        self.questions.append(question)
        return 100 + len(self.questions)


def pair(engine: Asked, strategy: str = "top_k") -> tuple[PairReasons, Any]:
    made = session(engine)
    made.start(Request("Why?", "top_p", seed=7))
    made.pump()
    first = made.run
    assert first is not None
    second = made.start_beside(first, Request("Why?", strategy, seed=7))
    made.pump()
    assert second is not None
    return PairReasons(made, (first, second)), made


def test_a_token_is_asked_for_once_and_its_answer_kept() -> None:
    engine = Asked()
    reasons, made = pair(engine)
    for _ in range(3):
        assert reasons.reason(1, 4, ids=(9,)) == (None, "")
    (question,) = engine.questions
    assert (question.request.strategy, len(question.request.prefix), question.ids) == ("top_k", 4, (9,))
    engine.events.append(Explained(101, of_top_p()))
    made.pump()
    assert reasons.reason(1, 4, ids=(9,)) == (of_top_p(), "")
    assert len(engine.questions) == 1


def test_what_cannot_be_explained_is_a_sentence() -> None:
    engine = Asked()
    reasons, made = pair(engine)
    reasons.reason(0, 2)
    engine.events.append(Failed("Another model wrote this.", 101, code="cannot_explain"))
    made.pump()
    assert reasons.reason(0, 2) == (None, "Another model wrote this.")
    assert reasons.reason(0, None) == (None, "")
    assert reasons.reason(0, 10_000) == (None, "")
    first = made.run
    first.request = replace(first.request, strategy="gone")
    assert reasons.reason(0, 3) == (None, "There is no strategy 'gone' here any more.")


def test_nothing_is_asked_while_a_run_goes_on_or_without_an_engine() -> None:
    engine = Asked()
    engine.held = True
    reasons, made = pair(engine)
    assert reasons.reason(0, 2) == (None, "The full reason comes when both runs have ended.")
    made.dead = "The engine stopped."
    assert reasons.reason(0, 2) == (None, "The engine has stopped; this is what was recorded.")
    assert engine.questions == []
