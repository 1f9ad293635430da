"""What has changed since a run was written is said beside its reasons, or in their place."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.config.settings import Settings
from edge_tui.engine.events import Explained
from edge_tui.history.restore import transcript_of
from edge_tui.history.runs import StoredRun
from edge_tui.history.store import Store
from edge_tui.tui.run_params import RunParams
from edge_tui.tui.session import Run, Session
from edge_tui.tui.stored_runs import run_of
from edge_tui.tui.workbench.why_controller import WhyController
from tests.history.runs import keep
from tests.transcript.explanations import of_top_p
from tests.tui.engines import PictureEngine

Change = Callable[[StoredRun], StoredRun]


class ExplainingEngine(PictureEngine):
    def explain(self, question: Any) -> int:
        self.questions.append(question)
        self.events.append(Explained(-len(self.questions), of_top_p()))
        return -len(self.questions)


def controller(run: Run) -> tuple[WhyController, Session]:
    session = Session()
    session.attach(ExplainingEngine())
    session.viewed = run
    return WhyController(session, RunParams(Settings(), decoders.find("top_p")), None), session  # type: ignore[arg-type]


def reason(run: Run) -> tuple[Any, str]:
    """Asks for the first token's reason until there is one, or a sentence in its place."""
    why, session = controller(run)
    assert run.transcript is not None
    for _ in range(2):
        found, note, _ = why.reason(run.transcript, 0)
        session.pump()
    if found is not None:
        assert why.reason(run.transcript, 0)[0] is found, "the screen paints what is another object"
    return found, note


def stored(change: Change) -> Run:
    with closing(Store()) as store:
        kept = change(store.load(keep(store, "Why?").id))
    return run_of(kept, transcript_of(kept), {})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: replace(run, versions={}), ""),
        (
            lambda run: replace(run, versions={"edge-tui": "0.0.1"}),
            "edge-tui was 0.0.1, here ",
        ),
    ],
)
def test_other_versions_are_a_note(change: Change, says: str) -> None:
    why, note = reason(stored(change))
    assert note == ""
    assert says in why.note
    assert why.exactness == ("near" if says else of_top_p().exactness)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: replace(run, models={}), "does not say which model wrote it"),
        (
            lambda run: replace(run, started=replace(run.started, strategy="nobodys")),
            "There is no strategy nobodys here",
        ),
    ],
)
def test_what_is_gone_is_said_in_place_of_a_reason(change: Change, says: str) -> None:
    why, note = reason(stored(change))
    assert why is None
    assert says in note


def test_a_strategy_that_was_read_anew_since_a_run_gives_no_reason_for_it() -> None:
    run = stored(lambda run: replace(run, versions={}))
    run.stored, run.decoder = None, decoders.find("top_p")
    assert reason(run)[0] is not None
    run.decoder = decoders.find("top_k")
    assert reason(run) == (None, "top-p has changed since this run, so it may decide otherwise now.")
