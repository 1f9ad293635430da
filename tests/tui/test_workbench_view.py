"""What the workbench paints of its state, without an app."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.engine.events import Event
from edge_tui.transcript.transcript import Transcript
from edge_tui.tui.conversation import Conversation
from edge_tui.tui.session import Session
from edge_tui.tui.workbench.view import WorkbenchView
from tests.tui.engines import WORDS, FixedTelemetry, PictureEngine, ticking
from tests.tui.parts import session, settings
from tests.tui.transcripts import batch, started


class Pane:
    """A token pane that needs no app."""

    cursor: int | None = None
    show_final = folding = False
    colour_by = "probability"

    def __init__(self) -> None:
        self.transcript: Any = None
        self.painted = 0

    def show(self, transcript: Any) -> None:
        self.transcript = transcript

    def refresh_tail(self) -> None:
        self.painted += 1

    def focus(self) -> None: ...

    def put_cursor(self, at: int) -> None:
        self.cursor = at

    def call_after_refresh(self, call: Any, *args: Any) -> None:
        call(*args)


def view_of(made: Session, strategy: str = "top_p", **changes: Any) -> WorkbenchView:
    view = WorkbenchView(made, settings(strategy, **changes), FixedTelemetry())  # type: ignore[arg-type]
    view.pane = Pane()  # type: ignore[assignment]
    view.show_strategies(decoders.strategies(), {})
    return view


def ran(view: WorkbenchView, made: Session, strategy: str = "top_p") -> list[Event]:
    """Runs a prompt and paints what came of it."""
    made.start(settings(strategy).request("Why?"))
    news = made.pump()
    view.paint(news, FixedTelemetry().latest())
    return news


def test_a_run_is_painted_with_its_title_and_its_speed() -> None:
    made = session()
    view = view_of(made)
    ran(view, made)
    assert made.run is not None
    assert view.transcript is made.run.transcript
    assert view.pane.transcript is view.transcript
    assert str(view.output.border_title) == "tokens · top-p"
    assert view.gauge.speed.written == len(WORDS)
    assert view.gauge.on_gpu
    assert (view.header.state, view.header.kind) == ("ready", "idle")


def test_what_is_said_is_text() -> None:
    view = view_of(session())
    view.say("temperature is [/] -1\x1b[2J", "error")
    assert (view.messages.message, view.messages.kind) == ("temperature is [/] -1␛[2J", "error")


def test_without_streaming_tokens_come_when_they_are_all_there() -> None:
    engine = PictureEngine()
    engine.held = True
    made = session(engine)
    view = view_of(made, stream=False)
    ran(view, made)
    assert view.transcript is None
    made.stop()
    view.paint(made.pump(), None)
    assert view.transcript is not None


def test_beams_have_their_board() -> None:
    made = session()
    view = view_of(made, "beam")
    ran(view, made, "beam")
    assert view.output.has_class("-board")
    view.toggle_board()
    assert not view.output.has_class("-board")
    ran(view, made)
    view.toggle_board()
    assert not view.output.has_class("-board")
    assert view.messages.message.startswith("Only beam search")


def test_samples_side_by_side_have_no_board() -> None:
    view = view_of(session())
    tokens = batch(WORDS[:6], rows=3)
    samples = Transcript(started(rows=3))
    samples.extend(replace(tokens, parent=tokens.row))
    view.show(samples)
    assert not view.output.has_class("-board")
    view.toggle_board()
    assert not view.output.has_class("-board")
    assert view.messages.message.startswith("Only beam search")


def test_cleared_tokens_stay_away_and_come_back() -> None:
    made = session()
    view = view_of(made)
    assert not view.clear()
    assert view.answer() == ""
    news = ran(view, made)
    shown = view.transcript
    assert view.answer() == "".join(WORDS)
    assert view.clear()
    view.paint(news, None)
    assert view.transcript is None
    assert view.restore()
    assert view.transcript is shown
    assert not view.restore()


def test_cleared_tokens_come_back_when_the_next_run_is_refused() -> None:
    made = session()
    view = view_of(made)
    news = ran(view, made)
    shown = view.transcript
    view.clear()
    view.follow()
    view.paint(news, None)
    assert view.transcript is shown


@pytest.mark.parametrize(("cursor", "kept"), [(5, 5), (50, 8)])
def test_the_cursor_stays_on_its_token_when_the_run_goes_on_from_there(cursor: int, kept: int) -> None:
    made = session()
    view = view_of(made)
    view.pane.cursor = cursor
    made.start(settings().request("Why?", prefix=tuple(range(9))))
    view.paint(made.pump(), None)
    assert view.pane.cursor == kept


def test_an_earlier_run_stays_on_the_screen_until_another_begins() -> None:
    made = session()
    view = view_of(made)
    ran(view, made)
    first = made.run
    ran(view, made)
    view.look_at(first)
    assert made.current is first
    assert first is not None
    assert view.transcript is first.transcript
    ran(view, made)
    assert made.run is not None
    assert view.transcript is made.run.transcript


def test_the_header_names_the_models() -> None:
    empty = Session(ticking())
    view = view_of(empty)
    view.show_model()
    assert view.header.model == "demo/expert", "the one that is to be loaded"
    made = session()
    view = view_of(made, "contrastive")
    made.loaded["amateur"] = replace(made.loaded["model"], name="little")
    view.show_model()
    assert view.header.model == "Qwen2.5-0.5B-Instruct − little"


@pytest.mark.parametrize(
    ("text", "counted"), [("", ""), ("a b c", "3 of 32,768 tokens"), ("x" * 200_001, "200,001 characters")]
)
def test_the_prompt_has_its_length_below_it(text: str, counted: str) -> None:
    view = view_of(session())
    view.prompt.load_text(text)
    view.count_prompt()
    assert str(view.prompt.border_subtitle or "") == counted


def test_the_prompt_is_titled_by_what_it_will_do() -> None:
    view = view_of(session())
    talk = Conversation()
    for changing, title in ((None, "message 1"), (0, "message 1, changed · esc leaves it")):
        view.show_conversation(talk, changing)
        assert view.prompt.border_title == title
    view.show_conversation(None, None)
    assert view.prompt.border_title == "prompt"
    assert not view.output.has_class("-talking")
