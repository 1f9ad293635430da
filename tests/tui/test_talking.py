"""Conversations, on a model with a chat template and on one without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import Message, ModelSpec
from edge_tui.history.recorder import Recorder
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.conversation import Conversation, of_messages
from edge_tui.tui.session import Meter, Run
from tests.engine.random_checkpoints import make_checkpoint
from tests.tui.rendered import was_said
from tests.tui.test_workbench import SIZE, bench, ended, press, ready, until
from tests.tui.transcripts import transcript_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "talker"
    return str(make_checkpoint(folder, context=512, chat_template=True, seed=5))


@pytest.fixture
def talker(model: str, request: pytest.FixtureRequest) -> Callable[..., EdgeApp]:
    def make(**changes: Any) -> EdgeApp:
        settings = replace(Settings(), **{"strategy": "greedy", "max_length": 12} | changes)
        app = EdgeApp(
            lambda: LocalEngine({"model": ModelSpec(model)}),
            settings,
            theme_folders=[resources.themes()],
            recorder=lambda: Recorder(lambda: Store(default_path())),
        )
        request.addfinalizer(lambda: app.session.engine and app.session.engine.close(2.0))
        return app

    return make


async def say(pilot: Any, text: str) -> Any:
    """Sends a message and waits for the answer's end."""
    workbench = bench(pilot)
    before = workbench.session.run
    workbench.prompt.insert(text)
    await press(pilot, "ctrl+j")
    await until(pilot, lambda: workbench.session.run is not before and ended(workbench))
    await until(pilot, lambda: workbench.pane.transcript is workbench.session.run.transcript)
    return workbench.session.run


async def talking(pilot: Any) -> Any:
    workbench = bench(pilot)
    await until(pilot, lambda: ready(workbench))
    workbench.pane.focus()
    await until(pilot, lambda: workbench.focused is workbench.pane)
    await press(pilot, "v")
    await until(pilot, lambda: workbench.conversation.talk and workbench.focused is workbench.prompt)
    return workbench


async def test_each_message_goes_on_from_the_answers_before(talker: Any) -> None:
    async with talker(system="Be brief.").run_test(size=SIZE) as pilot:
        workbench = await talking(pilot)
        first = await say(pilot, "the quick brown fox")
        assert workbench.prompt.text == ""
        answer = first.transcript.text
        second = await say(pilot, "and the dog")
        assert second.request.prompt == (
            Message("user", "the quick brown fox"),
            Message("assistant", answer),
            Message("user", "and the dog"),
        )
        assert second.request.system == "Be brief."
        # What was read is not read again, nor what was written, as far as its text gives the same ids.
        assert second.started.reused_tokens > first.started.prompt_tokens
        reused = f"{second.started.reused_tokens} reused"
        await until(pilot, lambda: was_said(reused))
        assert [each.run for each in workbench.conversation.talk.exchanges] == [first, second]
        assert workbench.view.turns.display


async def test_control_tokens_that_are_obeyed_stand_out(talker: Any) -> None:
    async with talker(control_tokens=True).run_test(size=SIZE) as pilot:
        workbench = await talking(pilot)
        run = await say(pilot, "hi<|im_end|>you")
        lines = workbench.view.turns.compose_lines(60, 4)
        marked = [text for line in lines for text, style in line if style == "$warning reverse"]
        assert marked == ["<|im_end|>"]
        assert any("<|im_end|>" in notice for notice in run.started.notices)
        await until(pilot, lambda: was_said("<|im_end|>"))


async def test_an_earlier_message_is_changed_and_gone_on_from(talker: Any) -> None:
    async with talker().run_test(size=SIZE) as pilot:
        workbench = await talking(pilot)
        first = await say(pilot, "the river in the north")
        second = await say(pilot, "the rain")
        third = await say(pilot, "the thunder")
        await press(pilot, "u", "up", "e")
        await until(pilot, lambda: workbench.focused is workbench.prompt)
        assert workbench.prompt.text == "the rain"
        await press(pilot, "escape")
        await until(pilot, lambda: workbench.prompt.text == "")
        workbench.view.turns.focus()
        await press(pilot, "e")
        await until(pilot, lambda: workbench.prompt.text == "the rain")
        run = await say(pilot, " in the morning")
        assert [each.prompt for each in workbench.conversation.talk.exchanges] == [
            "the river in the north",
            "the rain in the morning",
        ]
        assert workbench.conversation.talk.exchanges[0].run is first
        assert run.started.reused_tokens > first.started.prompt_tokens
        store = workbench.app.history()
        await until(pilot, lambda: len(store.runs()) == 4 and all(e.state != "running" for e in store.runs()))
        uids = {entry.uid for entry in store.runs()}
        assert {first.uid, second.uid, third.uid, run.uid} == uids


async def test_a_conversation_comes_back_from_the_history(talker: Any) -> None:
    async with talker().run_test(size=SIZE) as pilot:
        workbench = await talking(pilot)
        first = await say(pilot, "the river")
        second = await say(pilot, "the rain")
        store = workbench.app.history()
        await until(
            pilot, lambda: all(e.state == "finished" for e in store.runs()) and len(store.runs()) == 2
        )
        (entry,) = [entry for entry in store.runs() if entry.uid == second.uid]
        assert (entry.turn, entry.parent) == (1, first.uid)
        await press(pilot, "V")
        await until(pilot, lambda: workbench.conversation.talk.exchanges == [])
        workbench.reopen(entry.id)
        await until(pilot, lambda: workbench.session.viewed is not None)
        exchanges = workbench.conversation.talk.exchanges
        assert [each.prompt for each in exchanges] == ["the river", "the rain"]
        assert [each.run.transcript.ids() for each in exchanges] == [
            first.transcript.ids(),
            second.transcript.ids(),
        ]
        run = await say(pilot, "the thunder")
        assert len(workbench.conversation.talk.exchanges) == 3
        assert run.started.reused_tokens > 0


async def test_a_message_that_the_template_refuses_comes_back_to_the_prompt(talker: Any, model: str) -> None:
    file = Path(model) / "chat_template.jinja"
    honest = file.read_text()
    file.write_text("{% if messages[-1].content == 'no' %}{{ 'a' * 9999999999 }}{% endif %}" + honest)
    try:
        async with talker().run_test(size=SIZE) as pilot:
            workbench = await talking(pilot)
            await say(pilot, "hello")
            workbench.prompt.insert("no")
            await press(pilot, "ctrl+j")
            await until(pilot, lambda: workbench.session.run.phase == "failed" and ended(workbench))
            assert workbench.prompt.text == "no"
            assert [each.prompt for each in workbench.conversation.talk.exchanges] == ["hello"]
            last = await say(pilot, "w")
            assert [turn.content for turn in last.request.prompt if turn.role == "user"] == ["hello", "now"]
            assert last.phase == "done"
    finally:
        file.write_text(honest)


# Without a screen.


def answered(prompt: str, text: str) -> tuple[str, Run]:
    from edge_tui.engine.port import Request

    run = Run(1, Request(prompt), Meter(lambda: 0.0), phase="done")
    run.transcript = transcript_of(text.split(" "))
    return prompt, run


def test_an_unanswered_message_gives_way() -> None:
    talk = Conversation()
    talk.ask("a")
    assert talk.ask("b") == (Message("user", "b"),)
    talk.exchanges[0].run = answered("b", "x")[1]
    assert talk.ask("c") == (Message("user", "b"), Message("assistant", "x"), Message("user", "c"))
    assert talk.ask("d", 0) == (Message("user", "d"),)


def test_a_run_belongs_to_the_exchange_whose_prompt_it_read() -> None:
    talk = Conversation()
    first = talk.ask("a")
    talk.exchanges[0].run = answered("a", "x")[1]
    second = talk.ask("b")
    assert talk.number(second) == 1
    assert talk.number(first) == 0
    assert talk.number("a") is None
    assert talk.number((Message("user", "z"), *second[1:])) is None
    place = talk.begin(first)
    assert place is not None
    assert (place.turn, place.parent) == (0, "")
    assert len(talk.exchanges) == 1


def test_thoughts_are_read_again_but_not_shown() -> None:
    talk = of_messages(
        (Message("user", "a"), Message("assistant", "<think>x</think>y"), Message("user", "b"))
    )
    assert talk.exchanges[0].answer == "<think>x</think>y"
    assert talk.exchanges[0].visible_answer == "y"
    assert talk.messages(1)[1].content == "<think>x</think>y"


def test_a_thought_that_the_template_opened_is_closed_on_both_sides() -> None:
    talk = Conversation()
    talk.ask("a")
    run = answered("a", "hm </think> yes")[1]
    assert run.transcript is not None
    run.transcript.started = replace(run.transcript.started, thinking=True)
    talk.exchanges[0].run = run
    assert talk.exchanges[0].answer == "<think>\nhm</think>yes"
    assert talk.exchanges[0].visible_answer == "yes"
