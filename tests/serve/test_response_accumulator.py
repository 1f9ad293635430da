"""The answer of a generation is put together from the engine's events."""

from __future__ import annotations

from edge_tui.engine.events import Finished
from edge_tui.serve.response_accumulator import ResponseAccumulator
from tests.history.runs import batch, started


def test_an_unfinished_character_at_the_end_is_part_of_the_answer() -> None:
    answer = ResponseAccumulator(top=0)
    answer.add(started())
    answer.add(batch(["a", "b"]))
    (tail,) = answer.add(Finished(1, "length", 2, 0.0, 0.0, reasons=("length",), tails=("⟨E2⟩",)))
    assert tail.text == "⟨E2⟩"
    (choice,) = answer.choices
    assert (choice.text, choice.token_count, choice.reason) == ("ab⟨E2⟩", 2, "length")
