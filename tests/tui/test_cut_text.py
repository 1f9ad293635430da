"""Text that has no room ends in an ellipsis, wherever it is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.content import Content

from edge_tui.tui.widgets.fitted_text import fit_lines
from edge_tui.tui.widgets.gauge import Gauge
from edge_tui.tui.widgets.header import HeaderBar
from tests.tui.rendered import lines, settle
from tests.tui.test_pictures import ran

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.tui.app import EdgeApp

WORDS = "Published score; seed is there to be looked at: it prefers what the expert dislikes."


@given(st.text("ab 日,.", min_size=1, max_size=80), st.integers(4, 30), st.integers(1, 5))
def test_a_text_is_whole_or_ends_in_an_ellipsis(text: str, width: int, height: int) -> None:
    fitted = fit_lines(Content(text), width, height)
    shown = fitted.wrap(width)
    assert len(shown) <= height
    assert all(cell_len(line.plain.rstrip()) <= width for line in shown)
    assert fitted.plain == text or fitted.plain.endswith("…")


def test_no_room_shows_nothing() -> None:
    assert fit_lines(Content(WORDS), 20, 0).plain == ""


async def test_the_sidebar_shows_parameters_and_a_help_that_is_whole_or_cut(
    picture: Callable[..., EdgeApp],
) -> None:
    app = picture()
    async with app.run_test(size=(120, 36)) as pilot:
        await ran("7", "h", "enter")(pilot)
        parameters = app.workbench.parameters
        for width, height, least in ((120, 36, 4), (100, 34, 4), (80, 24, 4), (60, 16, 1)):
            await pilot.resize_terminal(width, height)
            await settle(pilot)
            if not parameters.region.area:
                await pilot.press("i")  # the inspector has the sidebar's place
                await settle(pilot)
            about = parameters.help_line.region
            assert parameters.table.size.height >= least
            assert about.bottom <= parameters.region.bottom - 1
            shown = " ".join(
                line[about.x : about.right].strip() for line in lines(app)[about.y : about.bottom]
            )
            assert not about.area or shown == WORDS or shown.endswith("…")


async def test_the_lines_of_the_workbench_end_in_an_ellipsis(picture: Callable[..., EdgeApp]) -> None:
    app = picture()
    async with app.run_test(size=(100, 24)) as pilot:
        await ran()(pilot)
        app.workbench.query_one(HeaderBar).model = "a-model-with-quite-a-long-name-of-its-own"
        for width in (100, 76, 64, 60):
            await pilot.resize_terminal(width, 24)
            await settle(pilot)
            shown = [line.rstrip() for line in lines(app)]
            assert "…" in shown[0] or "cuda:0" in shown[0]
            assert shown[-1].endswith(("palette", "…"))
            top = app.workbench.query_one(Gauge).content_region.y
            assert shown[top].endswith(("A2000", "…"))
            assert shown[top + 1].endswith(("67", "…"))


async def test_a_list_and_what_it_says_below_share_the_box(picture: Callable[..., EdgeApp]) -> None:
    app = picture()
    async with app.run_test(size=(60, 16)) as pilot:
        await settle(pilot)
        app.workbench.pane.focus()
        for key in ("s", "m", "comma", "d"):
            await pilot.press(key)
            await settle(pilot)
            screen: Any = app.screen
            assert screen.options.size.height >= 1
            assert screen.options.region.bottom <= screen.about.region.y
            assert screen.about.region.bottom <= screen.box.region.bottom - 1
            await pilot.press("escape")
