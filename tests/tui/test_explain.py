"""A parameter explains itself: text, range, and bars that follow as it is turned."""

from __future__ import annotations

from typing import Any

from edge_tui import decoders
from tests.tui.engines import PictureEngine


async def opened(pilot: Any, *keys: str) -> Any:
    app = pilot.app
    await pilot.pause(0.1)
    app.workbench.prompt.insert("Why is the sky blue?")
    await pilot.press("ctrl+j")
    for _ in range(100):
        await pilot.pause(0.02)
        if app.workbench.pane.transcript is not None:
            break
    await pilot.press("e", *keys, "space")
    await pilot.pause(0.1)
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
        await pilot.pause(0.1)
        app.workbench.pane.focus()
        await pilot.press("e", "space")
        await pilot.pause(0.1)
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
        await pilot.pause(0.1)
        assert "no picture of it" in said(app.screen)


async def test_contrastive_on_real_models(demo: Any) -> None:
    app = demo(strategy="contrastive", max_length=8)
    async with app.run_test(size=(120, 40)) as pilot:
        await pilot.pause(0.1)
        app.workbench.prompt.insert("def fibonacci(n):")
        await pilot.press("ctrl+j")
        for _ in range(600):
            await pilot.pause(0.02)
            if app.session.run is not None and app.session.run.phase == "done":
                break
        app.workbench.parameters.table.choose("alpha")
        await pilot.press("e", "space")
        await pilot.pause(0.2)
        few = said(app.screen)
        assert "tokens compete; the best is taken." in few
        assert "can be drawn" not in few
        for _ in range(9):
            await pilot.press("shift+right")
        assert "\n1 of " in said(app.screen)  # α = 1 leaves the expert's best alone
