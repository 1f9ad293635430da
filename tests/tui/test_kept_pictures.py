"""What else history and conversations look like, at the smallest size: SVG snapshots."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.tui.screens.history import HistoryScreen
from tests.tui.engines import PictureEngine
from tests.tui.kept import ASKED, answered, fill, keeping
from tests.tui.rendered import is_open, settle, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

pytestmark = pytest.mark.usefixtures("greenwich")


def keys(*pressed: str) -> Callable[[Pilot[Any]], Any]:
    """Presses keys in the token pane, once the model is there."""

    async def before(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await settle(pilot)
        app.workbench.pane.focus()
        await pilot.pause(0.05)
        for key in pressed:
            await pilot.press(key)
            await pilot.pause(0.1)
            if isinstance(app.screen, HistoryScreen):
                await until(pilot, lambda: is_open(app, HistoryScreen))
                await until(pilot, lambda: "runs" in str(app.screen.box.border_title))
        for field in app.screen.query("Input"):
            field.cursor_blink = False
        await settle(pilot)

    return before


def said(*turns: str, then: tuple[str, ...] = ()) -> Callable[[Pilot[Any]], Any]:
    """Talks in turns, then presses keys."""

    async def before(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await keys("v")(pilot)
        for turn in turns:
            app.workbench.prompt.insert(turn)
            exchanges = len(app.workbench.conversation.talk.exchanges)
            await pilot.press("ctrl+j")
            await until(pilot, lambda known=exchanges: answered(app.workbench, known + 1))
        for key in then:
            await pilot.press(key)
            await pilot.pause(0.1)
        await settle(pilot)

    return before


def test_empty_history(snap_compare: Any) -> None:
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=keys("o"))


def test_deleted_and_marked(snap_compare: Any) -> None:
    fill()
    before = keys("o", "ctrl+x", "down", "ctrl+d", "down")
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=before)


def test_a_message_is_changed(snap_compare: Any) -> None:
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=said(*ASKED, then=("u", "up", "e")))


def test_reopened(snap_compare: Any) -> None:
    fill()
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=keys("o", "down", "enter"))


class ThinkingEngine(PictureEngine):
    """Thinks before it answers."""

    def poll(self) -> list[Any]:
        from dataclasses import replace

        from edge_tui.engine.events import TokenBatch

        news: list[Any] = []
        for event in super().poll():
            if isinstance(event, TokenBatch):
                at = int(event.step[0])
                marks = {0: "<think>", 12: "</think>", 13: "\n\n"}
                event = replace(event, text=(marks.get(at, event.text[0]),))
            news.append(event)
        return news


@pytest.mark.parametrize("unfolded", [False, True])
def test_thoughts(snap_compare: Any, unfolded: bool) -> None:
    # Laid out anew: how far a pane that follows has scrolled depends on when its tokens came.
    before = said(ASKED[0], then=("z", "home") if unfolded else ("z", "z", "home"))
    assert snap_compare(keeping(ThinkingEngine()), terminal_size=(80, 24), run_before=before)
