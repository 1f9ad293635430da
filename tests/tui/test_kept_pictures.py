"""What history, comparison, presets, prompts and conversations look like: SVG snapshots."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.presets import Preset, save
from edge_tui.tui.screens.history import HistoryScreen
from tests.tui.engines import PictureEngine
from tests.tui.kept import fill, keeping
from tests.tui.test_pictures import settle
from tests.tui.test_workbench import until

if TYPE_CHECKING:
    from textual.pilot import Pilot

SIZES = [(80, 24), (120, 40), (200, 50)]
THEMES = ["dark", "light"]
ASKED = ("Why is the sky blue?", "And at sunset?", "And on Mars?")


@pytest.fixture(autouse=True)
def _greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moments are written in local time."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


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
                await until(pilot, lambda: "runs" in str(app.screen._dialog.border_title))
        for field in app.screen.query("Input"):
            field.cursor_blink = False
        await settle(pilot)

    return before


def answered(workbench: Any, exchanges: int) -> bool:
    """Whether the newest of so many exchanges is on the screen with all its tokens."""
    transcript = workbench.pane.transcript
    return (
        len(workbench.talk.exchanges) == exchanges
        and workbench.talk.exchanges[-1].run is workbench.session.run
        and transcript is not None
        and transcript is workbench.session.run.transcript
        and not workbench.session.busy
        and workbench.pane.laid_out == len(transcript)
    )


def said(*turns: str, then: tuple[str, ...] = ()) -> Callable[[Pilot[Any]], Any]:
    """Talks in turns, then presses keys."""

    async def before(pilot: Pilot[Any]) -> None:
        app: Any = pilot.app
        await keys("v")(pilot)
        for turn in turns:
            app.workbench.prompt.insert(turn)
            exchanges = len(app.workbench.talk.exchanges)
            await pilot.press("ctrl+j")
            await until(pilot, lambda known=exchanges: answered(app.workbench, known + 1))
        for key in then:
            await pilot.press(key)
            await pilot.pause(0.1)
        await settle(pilot)

    return before


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_history(snap_compare: Any, size: tuple[int, int], theme: str) -> None:
    fill()
    assert snap_compare(keeping(theme=theme), terminal_size=size, run_before=keys("o", "down"))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_conversation(snap_compare: Any, size: tuple[int, int], theme: str) -> None:
    app = keeping(theme=theme)
    assert snap_compare(app, terminal_size=size, run_before=said(*ASKED, then=("u", "up")))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_comparison(snap_compare: Any, size: tuple[int, int], theme: str) -> None:
    runs = fill()
    store = Store(default_path())
    batch = store.load(runs[1]).batches[0]
    batch.id[9] += 1
    store.append(runs[1], 0, batch, replacing=1)
    before = keys("o", "down", "down", "down", "ctrl+d", "down", "ctrl+d")
    assert snap_compare(keeping(theme=theme), terminal_size=size, run_before=before)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_presets(snap_compare: Any, size: tuple[int, int], theme: str) -> None:
    save(Preset("mine", "contrastive", title="Mine", parameters={"alpha": 0.2}, system="Be brief."))
    assert snap_compare(keeping(theme=theme), terminal_size=size, run_before=keys("d"))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_prompts(snap_compare: Any, size: tuple[int, int], theme: str) -> None:
    fill()
    assert snap_compare(keeping(theme=theme), terminal_size=size, run_before=keys("ctrl+r", "down"))


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES)
def test_files(
    snap_compare: Any,
    size: tuple[int, int],
    theme: str,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = home / "prompts"
    (folder / "drafts").mkdir(parents=True)
    for name in ("haiku.txt", "review.md", "\x1b[31mhostile.txt"):
        (folder / name).write_text("x" * 99)
    monkeypatch.chdir(folder)
    app = keeping(theme=theme)

    async def before(pilot: Pilot[Any]) -> None:
        await keys("ctrl+o")(pilot)
        # Where the folder lies differs from run to run.
        app.screen.query_one(".hint").update("~/prompts")
        await settle(pilot)

    assert snap_compare(app, terminal_size=size, run_before=before)


def test_empty_history(snap_compare: Any) -> None:
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=keys("o"))


def test_export(snap_compare: Any) -> None:
    fill()
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=keys("o", "ctrl+s"))


def test_save_preset(snap_compare: Any) -> None:
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=keys("D"))


def test_deleted_and_marked(snap_compare: Any) -> None:
    fill()
    before = keys("o", "ctrl+x", "down", "ctrl+d", "down")
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=before)


def test_a_message_is_changed(snap_compare: Any) -> None:
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=said(*ASKED, then=("u", "up", "e")))


def test_reopened(snap_compare: Any) -> None:
    fill()
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=keys("o", "down", "enter"))


@pytest.mark.parametrize("shown", ["history", "conversation"])
def test_without_colour(snap_compare: Any, monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    fill()
    before = keys("o", "down") if shown == "history" else said(*ASKED)
    assert snap_compare(keeping(), terminal_size=(80, 24), run_before=before)


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
    before = said(ASKED[0], then=("z", "home") if unfolded else ("home",))
    assert snap_compare(keeping(ThinkingEngine()), terminal_size=(80, 24), run_before=before)
