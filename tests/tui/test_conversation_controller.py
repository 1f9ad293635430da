"""The conversation, without a screen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge_tui.engine.events import Failed
from edge_tui.engine.port import Message, Request
from edge_tui.tui.conversation import Conversation
from edge_tui.tui.workbench.conversation_controller import ConversationController
from tests.tui.engines import WORDS
from tests.tui.parts import Field, View, session

ANSWER = "".join(WORDS)


class Talk:
    """A controller with what stands around it, and a person who talks."""

    def __init__(self) -> None:
        self.session, self.field, self.view = session(), Field(), View()
        self.controller = ConversationController(self.session, self.field, self.view)
        self.controller.toggle()

    @property
    def exchanges(self) -> list[str]:
        assert self.controller.talk is not None
        return [exchange.prompt for exchange in self.controller.talk.exchanges]

    def say(self, text: str) -> object:
        """Sends a message, and hears the answer."""
        messages = self.controller.messages_for(text)
        assert messages is not None
        request = Request(messages)
        self.session.start(request, None, self.controller.turn_position(request))
        for event in self.session.pump():
            self.controller.apply(event)
        return messages


@pytest.fixture
def talk() -> Talk:
    return Talk()


def test_each_message_goes_on_from_the_answers_before(talk: Talk) -> None:
    talk.field.text = "a"
    talk.say("a")
    assert talk.field.text == "", "what was sent leaves the field"
    assert talk.say("b") == (Message("user", "a"), Message("assistant", ANSWER), Message("user", "b"))


def test_a_base_model_refuses_to_talk() -> None:
    alone = session()
    alone.loaded["model"] = replace(alone.loaded["model"], name="some/base", chat=False)
    view = View()
    controller = ConversationController(alone, Field(), view)
    for begin in (controller.toggle, controller.restart):
        begin()
        assert controller.talk is None
        assert view.said.pop().startswith("some/base is a base model")
    controller.talk = Conversation()
    assert controller.messages_for("a") is None
    assert view.kind == "error"


def test_without_a_conversation_a_prompt_is_completed_on_its_own(talk: Talk) -> None:
    talk.say("a")
    talk.controller.toggle()
    assert talk.controller.talk is None
    assert talk.controller.messages_for("b") == "b"
    assert talk.controller.turn_position(Request("b")) is None


def test_another_conversation_begins_empty(talk: Talk) -> None:
    talk.say("a")
    talk.session.viewed = talk.session.run
    talk.controller.restart()
    assert talk.exchanges == []
    assert talk.session.viewed is None
    assert "clear" in talk.view.calls


def test_a_preview_has_the_turns_of_the_next_message_and_changes_nothing(talk: Talk) -> None:
    talk.say("a")
    talk.say("b")
    for change, expected in ((None, ["a", "b", "c"]), (1, ["a", "c"])):
        if change is not None:
            talk.controller.edit(change)
        shown = talk.controller.preview("c")
        assert talk.exchanges == ["a", "b"]
        assert [
            turn.content for turn in shown if isinstance(turn, Message) and turn.role == "user"
        ] == expected
    assert talk.controller.messages_for("c") == shown


def test_an_earlier_message_is_changed_and_gone_on_from(talk: Talk) -> None:
    for text in ("a", "b", "c"):
        talk.say(text)
    talk.controller.edit(1)
    assert talk.field.text == "b"
    assert "keeps what came after" in talk.view.said[-1]
    talk.say("other")
    talk.say("more")
    assert talk.exchanges == ["a", "other", "more"]


def test_a_change_is_left_as_it_was(talk: Talk) -> None:
    talk.say("a")
    assert not talk.controller.leave_edit()
    talk.controller.edit(0)
    assert talk.controller.leave_edit()
    assert talk.field.text == ""
    talk.say("b")
    assert talk.exchanges == ["a", "b"]


def test_a_refused_message_comes_back_unless_another_is_written(talk: Talk) -> None:
    talk.say("a")
    for written, left in (("", "b"), ("c", "c")):
        request = Request(talk.controller.messages_for("b") or "")
        talk.session.start(request)
        assert talk.session.run is not None
        talk.field.text = written
        talk.controller.apply(Failed("The template refuses it.", run=talk.session.run.id))
        assert talk.field.text == left
    assert talk.exchanges == ["a", "b"]


def test_the_answer_of_a_turn_is_shown(talk: Talk) -> None:
    talk.say("a")
    first = talk.session.run
    talk.say("b")
    talk.controller.choose(0)
    assert talk.view.looked_at is first
    talk.controller.choose(7)
    assert talk.view.looked_at is first


def test_a_repeated_message_leaves_what_came_after_behind(talk: Talk) -> None:
    first = talk.say("a")
    talk.say("b")
    position = talk.controller.turn_position(Request(first))  # type: ignore[arg-type]
    assert position is not None
    assert (position.turn, position.parent) == (0, "")
    assert talk.exchanges == ["a"]


def test_a_run_that_is_adopted_answers_its_message_and_leaves_those_after_it(talk: Talk) -> None:
    talk.say("a")
    first = talk.session.run
    talk.say("b")
    assert first is not None
    second = talk.session.start_beside(first, replace(first.request, strategy="greedy"))
    talk.session.pump()
    assert talk.exchanges == ["a", "b"]
    assert second is not None
    recorder = talk.session.recorder = Turns()  # type: ignore[assignment]
    talk.controller.adopt(second)
    assert talk.exchanges == ["a"]
    assert talk.controller.talk is not None
    assert talk.controller.talk.exchanges[0].run is second
    assert recorder.turns == [(second.id, talk.controller.talk.uid, 0, "")]


class Turns:
    """Notes the turns that runs become."""

    def __init__(self) -> None:
        self.turns: list[tuple[int, str, int, str]] = []

    def set_turn(self, *turn: object) -> None:
        self.turns.append(turn)  # type: ignore[arg-type]
