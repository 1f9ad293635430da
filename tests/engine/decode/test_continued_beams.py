"""Live scores of a search that continues a prefix."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_tui.engine.events import Started, TokenBatch
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Request
from edge_tui.engine.token_fields import TOKEN_FIELDS
from edge_tui.transcript.transcript import Transcript
from tests.engine.watch import Watched, watch

PROMPT, PREFIX = (40, 41, 42, 43), (50, 61, 72, 83, 94)
STEPS = 6


def of_step(batch: TokenBatch, step: int) -> TokenBatch:
    """The records of one step."""
    rows = batch.step == step
    columns = {field.name: getattr(batch, field.name)[rows] for field in TOKEN_FIELDS[:-1]}
    return replace(batch, **columns, candidates=None, text=("x",) * int(rows.sum()))


def boards(seen: Watched, prefix: tuple[int, ...]) -> list[list[float]]:
    """The scores of the live hypotheses after each step, best first."""
    (started,) = seen.all(Started)
    transcript = Transcript(started, prefix=prefix)
    scores = []
    for step in range(len(prefix), len(prefix) + STEPS):
        for batch in seen.all(TokenBatch):
            transcript.extend(of_step(batch, step))
        scores.append([each.score for each in transcript.hypotheses() if not each.finished])
    return scores


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5])
def test_live_scores_are_those_of_a_run_without_a_break(engine: LocalEngine, length_penalty: float) -> None:
    """Length counts what the search itself has written, whether its beginning was a prefix or a prompt."""
    whole = Request("", "beam", {"length_penalty": length_penalty}, ids=(*PROMPT, *PREFIX), max_length=STEPS)
    continued = replace(whole, ids=PROMPT, prefix=PREFIX)
    first, second = watch(engine, whole), watch(engine, continued)
    shown, shown_again = boards(first, ()), boards(second, PREFIX)
    assert [len(scores) for scores in shown] == [4] * STEPS
    for scores, again in zip(shown, shown_again, strict=True):
        assert again == pytest.approx(scores, abs=1e-4)
    assert second.finished.score == pytest.approx(first.finished.score, abs=1e-4)
    assert second.finished.score == pytest.approx(max(shown_again[-1]), abs=1e-4), "as the answer was chosen"
