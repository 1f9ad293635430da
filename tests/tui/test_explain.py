"""A parameter explains itself: help, range, and what becomes of a token as it is turned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_tui import decoders
from edge_tui.engine.events import Explained
from edge_tui.engine.port import Question
from edge_tui.tui.screens.explain import ExplainScreen
from tests.transcript.explanations import of_top_p
from tests.tui.engines import PictureEngine
from tests.tui.rendered import is_open, lines, until


class TurnedEngine(PictureEngine):
    """Takes another token at every temperature but 1."""

    def explain(self, question: Question) -> int:
        self.questions.append(question)
        number = -len(self.questions)
        temperature = question.request.values.get("temperature", 1.0)
        why = of_top_p()
        if temperature != 1.0:
            why = replace(why, winner=3)
        self.events.append(Explained(number, why))
        return number


def said(screen: Any) -> str:
    return str(screen.picture.render())


async def opened(pilot: Any, *keys: str) -> Any:
    app = pilot.app
    app.workbench.prompt.insert("Why is the sky blue?")
    await pilot.press("ctrl+j")
    await until(pilot, lambda: app.workbench.pane.laid_out)
    await pilot.press("e", *keys, "space")
    await until(pilot, lambda: is_open(app, ExplainScreen))
    return app.screen


async def test_the_token_is_asked_about_again_as_the_value_is_turned(picture: Any) -> None:
    engine = TurnedEngine()
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "down")
        await until(pilot, lambda: "It stays." in said(screen))
        before = said(screen)
        assert "Higher is more varied" in before
        assert before.count("  “hire”") == 2, "the ladder as it was, beside the one it would be"
        assert app.workbench.run_params.rows()[1].shown == "1"
        await pilot.press("right")
        await until(pilot, lambda: "It becomes “wood”." in said(screen))
        asked = engine.questions[-1]
        assert asked.request.values["temperature"] == 1.05
        assert asked.token == engine.questions[0].token
        assert asked.request.seed == engine.questions[0].request.seed
        assert asked.request.prefix == engine.questions[0].request.prefix
        assert {each.id for each in of_top_p().candidates} == set(asked.ids)
        await pilot.press("backspace")
        await until(pilot, lambda: said(screen) == before)
        await pilot.press("up")
        await until(pilot, lambda: screen.box.border_title == "top p")
        await pilot.press("escape")
        assert app.screen is app.workbench
        assert app.focused is app.workbench.parameters.table


async def test_any_chain_is_asked_about_by_its_own_definition(picture: Any) -> None:
    engine = TurnedEngine()
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await until(pilot, lambda: "It stays." in said(app.screen))
        for name in ("top_p+p_less", "beam:top_p"):
            app.workbench.run_params.decoder = decoders.find(name)
            app.workbench.parameters.reload()
            await until(pilot, lambda name=name: engine.questions[-1].request.strategy == name)
            assert engine.questions[-1].token == engine.questions[0].token


async def test_a_value_of_a_run_in_progress_is_turned_and_the_ladder_waits(picture: Any) -> None:
    engine = TurnedEngine()
    engine.held = True
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "down")
        assert "when the run has ended. Until then a live parameter that you turn changes the run." in said(
            screen
        )
        await pilot.press("shift+left", "shift+left")
        assert engine.turned[-1] == (1, "temperature", 0)
        assert not engine.questions
        engine.events.append(engine.finish(1))
        await until(pilot, lambda: "It becomes “wood”." in said(screen))


async def test_without_a_token_or_an_answer_it_says_so(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        app.workbench.pane.focus()
        await pilot.press("e", "space")
        assert "Run a prompt first" in said(app.screen)
        await pilot.press("escape")
        screen = await opened(pilot)
        await until(pilot, lambda: "Nothing is computed here." in said(screen))
        assert "This is the newest token. For another one, leave with esc and move onto it" in said(screen)
        await pilot.press("escape", "escape", "home", "e", "space")
        await until(pilot, lambda: "Nothing is computed here." in said(app.screen))
        assert app.workbench.pane.cursor == 0
        assert "newest" not in said(app.screen)


@pytest.mark.parametrize(
    "size",
    [
        (60, 16),
        pytest.param((80, 24), marks=pytest.mark.proof),
        pytest.param((160, 45), marks=pytest.mark.proof),
    ],
)
async def test_both_ladders_have_room_at_every_size(picture: Any, size: tuple[int, int]) -> None:
    app = picture(TurnedEngine())
    async with app.run_test(size=size) as pilot:
        screen = await opened(pilot)
        await until(pilot, lambda: "It stays." in said(screen))
        shown = "\n".join(lines(app))
        assert "as it was" in shown
        assert shown.count("● “b”") == 2, size
