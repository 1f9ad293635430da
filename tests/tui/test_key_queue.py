"""Keys that a slow line delivers in one piece do what they would have done one by one."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest
from textual.events import Paste
from textual.widgets import Input

from edge_tui.tui.key_queue import Follower
from edge_tui.tui.screens.strategies import StrategiesScreen
from tests.tui.kept import fill, keeping
from tests.tui.rendered import is_open
from tests.tui.test_history_screen import opened
from tests.tui.test_keys import bench, ran
from tests.tui.test_workbench import until

if TYPE_CHECKING:
    from textual.pilot import Pilot


async def arrive(pilot: Pilot[Any], *keys: str) -> None:
    """Keys in one piece, until they are worked off."""
    app: Any = pilot.app
    for key in keys:
        app.simulate_key(key)
    await pilot.pause()
    while app.key_queue.busy:
        await asyncio.sleep(0.01)
    await pilot.pause()


async def test_keys_behind_a_move_of_the_focus_follow_it(picture: Any) -> None:
    async with picture().run_test(size=(120, 40)) as pilot:
        workbench = await ran(pilot)
        table = workbench.parameters.table
        await arrive(pilot, "e", "home", "down", "right")
        assert workbench.focused is table
        assert table.row.changed, "the second parameter was turned"
        assert workbench.pane.cursor is None
        pilot.app.simulate_key("p")
        pilot.app.post_message(Paste(" And the sea?"))
        await arrive(pilot, "x", "y")
        assert workbench.prompt.text == "Why is the sky blue? And the sea?xy"
        await arrive(pilot, "escape", "h", "enter", "down")
        assert workbench.focused is workbench.inspector
        assert workbench.pane.cursor is not None


async def test_keys_behind_one_that_opens_a_screen_are_the_screens(picture: Any) -> None:
    async with picture().run_test(size=(120, 40)) as pilot:
        workbench = await ran(pilot)
        await arrive(pilot, "s", *"min")
        assert is_open(pilot.app, StrategiesScreen)
        assert pilot.app.screen.query_one(Input).value == "min"
        await arrive(pilot, "enter", "p", "?")
        assert pilot.app.screen is workbench
        assert workbench.run_params.decoder.name == "min_p"
        assert workbench.prompt.text.endswith("??")


async def test_what_is_held_down_or_typed_keeps_its_number(picture: Any) -> None:
    async with picture().run_test(size=(120, 40)) as pilot:
        workbench = await ran(pilot)
        await arrive(pilot, "home", *["right"] * 12)
        assert workbench.pane.cursor == 12
        workbench.prompt.focus()
        await arrive(pilot, *"a b c" * 40, "left", "backspace", "Z")
        assert workbench.prompt.text == "Why is the sky blue?" + "a b c" * 39 + "a bZc"


async def test_keys_on_the_way_out_are_heard_by_nobody(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        for key in ("q", *["right"] * 200):
            app.simulate_key(key)
        app.exit(0)
        await asyncio.sleep(0)
        assert workbench is bench(pilot)
    assert app.return_code == 0


async def test_a_pasted_text_without_brackets_keeps_its_lines(
    picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    followers: list[int] = []
    monkeypatch.setattr(
        "edge_tui.tui.key_queue.Follower", lambda *given: followers.append(given[0]) or Follower(*given)
    )
    async with picture().run_test(size=(120, 40)) as pilot:
        workbench = bench(pilot)
        workbench.prompt.focus()
        await pilot.pause(0.1)
        text = "\n".join("one two three"[: 3 + n % 10] for n in range(60))
        followers.clear()
        await arrive(pilot, *("enter" if each == "\n" else each for each in text), "home", "Z")
        written = text.splitlines()
        assert workbench.prompt.text.splitlines() == [*written[:-1], "Z" + written[-1]]
        assert len(set(followers)) == 1, "only the key that moves waits for the screen"


async def test_a_key_that_closes_a_dialog_keeps_none_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_tui.tui.key_queue.TIMEOUT", 3600.0)
    fill()
    app = keeping()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        app.simulate_key("enter")
        await until(pilot, lambda: app.screen is app.workbench and not app.key_queue.busy)
        await arrive(pilot, "p", "Z")
        assert app.workbench.prompt.text.endswith("Z")


async def test_the_editor_is_given_what_was_just_typed(picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("edge_tui.tui.editor.command", lambda: ["vi"])
    monkeypatch.setattr("edge_tui.tui.editor.edit", lambda text: given.append(text) or f"{text}!")
    app = picture()
    app.suspend = contextlib.nullcontext
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        await arrive(pilot, *"abc", "ctrl+g", "x")
        await pilot.pause(0.1)
        assert given == ["abc"]
        assert app.workbench.prompt.text == "abc!x"
