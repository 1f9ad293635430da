"""The screen behind a dialog is tinted to the cell as Textual tints it."""

from __future__ import annotations

from collections.abc import Callable

from textual.color import Color
from textual.renderables.background_screen import BackgroundScreen
from textual.strip import Strip
from textual.style import Style
from textual.visual import RenderOptions, RichVisual

from edge_tui.tui.app import EdgeApp
from edge_tui.tui.backdrop import Backdrop
from tests.tui.rendered import lines, settle


def cells(strips: list[Strip]) -> list[list[tuple[str, object]]]:
    return [[(mark, segment.style) for segment in strip for mark in segment.text] for strip in strips]


async def test_tints_the_same_as_textual(picture: Callable[..., EdgeApp]) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("escape", "question_mark")
        await settle(pilot)
        assert app.screen is not app.workbench
        assert "edge-tui" in lines(app)[0], "a dialog shows what is behind it"
        style = Style(Color(1, 2, 3), Color(200, 210, 220))
        options = RenderOptions(lambda _: Style(), app.screen.styles)
        for tint in (Color(9, 80, 200, 0.6), Color(250, 240, 230, 0.3), Color(9, 80, 200, 0.0)):
            behind = BackgroundScreen(app.workbench, tint)
            ours = Backdrop(behind).render_strips(70, 20, style, options)
            assert [strip.cell_length for strip in ours] == [70] * 20
            assert cells(ours) == cells(RichVisual(app.screen, behind).render_strips(70, 20, style, options))
