"""Nothing blinks, jumps or reflows: what a model writes is all that moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from textual.geometry import Region

from edge_tui.engine.events import Event, TokenBatch
from edge_tui.tui.app import EdgeApp
from tests.tui.engines import PictureEngine
from tests.tui.kept import keeping
from tests.tui.rendered import settle, strips, until


class Trickling(PictureEngine):
    """Gives as many batches of tokens as are asked for, and whatever else comes before the next one."""

    asked = 4

    def poll(self) -> list[Event]:
        news: list[Event] = []
        while self.events and (self.asked or not isinstance(self.events[0], TokenBatch)):
            self.asked -= isinstance(self.events[0], TokenBatch)
            news.append(self.events.popleft())
        return news


def regions(app: EdgeApp) -> dict[str, Region]:
    """Where everything of the workbench stands."""
    return {
        f"{type(widget).__name__} {widget.id}": widget.region
        for widget in app.workbench.walk_children()
        if widget.display
    }


@pytest.mark.parametrize(
    ("strategy", "size"), [("top_p", (80, 24)), ("beam", (80, 24)), ("contrastive", (160, 45))]
)
async def test_nothing_moves_while_tokens_come(
    picture: Callable[..., EdgeApp], size: tuple[int, int], strategy: str
) -> None:
    engine = Trickling()
    app = picture(engine)
    async with app.run_test(size=size) as pilot:
        await pilot.pause(0.1)
        bench = app.workbench
        bench.strategies.choose(strategy)
        bench.prompt.insert("Why is the sky blue?")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.transcript is not None and bench.pane.laid_out)
        await settle(pilot)
        first, widths, seen = regions(app), bench.pane.scrollable_content_region.width, 0
        while app.session.busy:
            assert regions(app) == first
            seen += 1
            engine.asked = 4
            await until(pilot, lambda: not engine.asked or not engine.events)
            await pilot.pause()
        await settle(pilot)
        assert seen > 10
        # The end of a run moves nothing either.
        assert regions(app) == first
        assert bench.pane.scrollable_content_region.width == widths


@pytest.mark.parametrize(
    "places", [("p", "D", "e,enter"), pytest.param(("o", "ctrl+r", "m"), marks=pytest.mark.proof)]
)
async def test_nothing_blinks(places: tuple[str, ...]) -> None:
    """The prompt, a line and a value; lists of which one types the beginning."""
    app = keeping()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause(0.1)
        for keys in places:
            app.workbench.pane.focus()
            await pilot.press(*keys.split(","))
            await settle(pilot, calm=False)
            first = strips(app)
            for _ in range(6):  # longer than Textual's cursors are on or off
                await pilot.pause(0.1)
                assert strips(app) == first, keys
            await pilot.press("escape")
            await pilot.pause()
