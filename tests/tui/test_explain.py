"""A parameter explains itself: text, range, and bars that follow as it is turned."""

from __future__ import annotations

from typing import Any

from edge_tui import decoders
from tests.tui.engines import PictureEngine
from tests.tui.test_workbench import until


async def opened(pilot: Any, *keys: str) -> Any:
    app = pilot.app
    app.workbench.prompt.insert("Why is the sky blue?")
    await pilot.press("ctrl+j")
    await until(pilot, lambda: app.workbench.pane.transcript)
    await pilot.press("e", *keys, "space")
    return app.screen


def said(screen: Any) -> str:
    return str(screen.picture.render())


async def test_bars_follow_the_value(picture: Any) -> None:
    engine = PictureEngine()
    engine.held = True
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot, "down")
        before = said(screen)
        assert "Higher is more varied" in before
        assert "without temperature" in before
        assert "tokens can be drawn" in before
        await pilot.press("shift+left", "shift+left")
        assert engine.turned[-1] == (1, "temperature", 0)
        assert app.workbench.run_params.rows()[1].shown == "0"
        assert "100.0%" in said(screen)
        assert "\n1 of " in said(screen)
        await pilot.press("backspace")
        assert said(screen) == before
        await pilot.press("up")
        assert screen.box.border_title == "top p"
        await pilot.press("escape")
        assert app.screen is app.workbench
        assert app.focused is app.workbench.parameters.table


async def test_what_cannot_be_pictured_says_so(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        app.workbench.pane.focus()
        await pilot.press("e", "space")
        assert "Run a prompt first" in said(app.screen)
        await pilot.press("escape")
        await opened(pilot)
        app.workbench.run_params.decoder = decoders.find("contrastive")
        app.workbench.parameters.reload()
        await pilot.press("up", "down")
        assert "needs what the amateur thinks" in said(app.screen)
        await pilot.press("escape")
        app.workbench.strategies.choose("beam")
        app.workbench.pane.focus()
        await pilot.press("e", "space")
        assert "no picture of it" in said(app.screen)


async def test_contrastive_needs_and_shows_what_the_amateur_thinks(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        app.workbench.strategies.choose("contrastive")
        screen = await opened(pilot)
        app.workbench.parameters.table.choose("alpha")
        screen.paint()
        assert "tokens compete; the best is taken." in said(screen)
        assert "can be drawn" not in said(screen)
        await pilot.press(*["shift+right"] * 9)
        assert "\n1 of " in said(app.screen)  # α = 1 leaves the expert's best alone
