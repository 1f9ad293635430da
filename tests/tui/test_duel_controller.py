"""Duels that are begun and ended, without a screen."""

from __future__ import annotations

from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.tui.screens.compare import Taken
from edge_tui.tui.workbench.duel_controller import DuelController
from tests.tui.test_run_controller import Running


class Strategies:
    """Refuses one strategy, and notes which is chosen."""

    def __init__(self) -> None:
        self.chosen: list[str] = []

    def refusal(self, decoder: Any) -> str:
        return "beam is refused here." if decoder.name == "beam" else ""

    def switch(self, name: str, keep_values: bool = True) -> str:
        self.chosen.append(name)
        return ""


class Answers:
    """Notes the run that becomes an answer."""

    adopted: Any = None

    def adopt(self, run: Any) -> None:
        self.adopted = run


class Duelling(Running):
    """A controller of duels beside one of runs."""

    def __init__(self, held: bool = False) -> None:
        super().__init__(held)
        self.strategies, self.answers = Strategies(), Answers()
        self.duels = DuelController(
            self.session, self.values, self.field, self.view, self.strategies, self.answers, self.run_field
        )  # fmt: skip

    def run_field(self) -> None:
        self.run(self.field.text)

    def begin(self, name: str = "top_k") -> Any:
        runs = self.duels.begin(name)
        self.pump()
        return runs


def test_the_second_run_differs_by_its_strategy_and_the_values_of_that() -> None:
    duelling = Duelling(held=True)
    duelling.values.set("system", "Be brief.")
    duelling.values.set("temperature", 0.7)
    duelling.run("Why?")
    duelling.values.decoder = decoders.find("top_k")
    duelling.values.set("top_k", 5)
    duelling.values.decoder = decoders.find("top_p")
    duelling.values.set("system", "Be long.")
    first, second = duelling.begin()
    one, other = first.request, second.request
    assert other.values == {"top_k": 5.0, "temperature": 0.7}
    assert (other.strategy, other.seed) == ("top_k", first.seed)
    assert (other.prompt, other.system, other.max_length) == (one.prompt, one.system, one.max_length)
    assert duelling.engine.beside == [None, first.id]
    assert duelling.values.decoder.name == "top_p"  # nothing was chosen
    assert len(first.transcript) == len(second.transcript) > 0


def test_a_run_that_has_ended_is_not_run_again() -> None:
    duelling = Duelling()
    duelling.run("Why?")
    first, second = duelling.begin()
    assert duelling.engine.beside == [None, None]
    assert first is duelling.session.run
    assert second.transcript is not None


def test_without_a_run_the_prompt_runs_first() -> None:
    duelling = Duelling(held=True)
    assert duelling.begin() is None
    assert duelling.said == "There is no prompt to run under two strategies."
    duelling.field.text = "Why?"
    first, second = duelling.begin()
    assert [request.strategy for request in duelling.engine.requests] == ["top_p", "top_k"]
    assert duelling.engine.beside == [None, first.id]
    assert first.request.prompt == second.request.prompt == "Why?"


def test_a_refused_strategy_is_said_and_nothing_runs() -> None:
    duelling = Duelling()
    duelling.run("Why?")
    assert duelling.begin("beam") is None
    assert duelling.said == "beam is refused here."
    assert len(duelling.engine.requests) == 1


def test_leaving_stops_the_second_run_and_changes_nothing_else() -> None:
    duelling = Duelling(held=True)
    duelling.run("Why?")
    first, second = duelling.begin()
    duelling.duels.end(None)
    assert duelling.engine.cancelled == [second.id]
    assert (duelling.session.run, duelling.session.beside) == (first, None)
    assert duelling.strategies.chosen == []


@pytest.mark.parametrize("held", [False, True])
def test_the_second_run_is_taken_with_its_strategy(held: bool) -> None:
    duelling = Duelling(held)
    duelling.run("Why?")
    first, second = duelling.begin()
    duelling.duels.end(Taken(second, 3))
    assert duelling.engine.cancelled == ([first.id] if held else [])
    assert duelling.session.current is second is duelling.session.run
    assert duelling.strategies.chosen == ["top_k"]
    assert duelling.answers.adopted is second
    assert duelling.view.looked_at is second
    assert duelling.view.calls[-1] == "look_at_token"


def test_the_first_run_is_taken_as_it_is() -> None:
    duelling = Duelling(held=True)
    duelling.run("Why?")
    first, second = duelling.begin()
    duelling.duels.end(Taken(first, None))
    assert duelling.engine.cancelled == [second.id]
    assert duelling.session.current is first
    assert duelling.strategies.chosen == []
    assert duelling.answers.adopted is None
