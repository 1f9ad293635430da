"""Where a paste goes, and where the focus stays, in the app."""

from __future__ import annotations

from typing import Any

import pytest
from textual.events import AppBlur, AppFocus, Paste
from textual.widgets import Input

from edge_tui.tui.input_parser import LONGEST_PASTE, PasteOpen, PasteRefused
from edge_tui.tui.screens.dialog import Dialog
from tests.tui.rendered import is_open, notices, until
from tests.tui.test_key_queue import arrive
from tests.tui.test_keys import bench, ran

SMALL, LARGE = (59, 15), (80, 24)


async def test_a_paste_without_a_field_goes_to_the_prompt(picture: Any) -> None:
    async with picture().run_test(size=LARGE) as pilot:
        workbench = await ran(pilot)
        assert workbench.focused is workbench.pane
        pilot.app.post_message(Paste(" And\r\nthe \x1b[31msea\x00?"))
        await arrive(pilot, "q")
        assert workbench.prompt.text == "Why is the sky blue? And\nthe ␛[31msea␀?q"
        workbench.set_focus(None)
        pilot.app.post_message(Paste("!"))
        await arrive(pilot, "Z")
        assert workbench.prompt.text.endswith("?q!Z")
        assert not notices(pilot.app), "it is seen where it went"


@pytest.mark.parametrize("key", ["question_mark", "s"])
async def test_a_paste_on_another_screen_is_in_the_prompt_and_said_to_be(picture: Any, key: str) -> None:
    async with picture().run_test(size=LARGE) as pilot:
        workbench = await ran(pilot)
        await arrive(pilot, key)
        assert is_open(pilot.app, Dialog)
        field = next(iter(pilot.app.screen.query(Input)), None)
        pilot.app.post_message(Paste("one\ntwo"))
        await pilot.pause()
        await pilot.pause()
        if field is not None and field.has_focus:
            assert field.value == "one"
            assert "first of 2" in notices(pilot.app)[0]
        else:
            assert workbench.prompt.text.endswith("one\ntwo")
            assert notices(pilot.app) == ["The paste is in the prompt: 7 characters."]


async def test_a_paste_while_the_terminal_has_no_focus_goes_where_it_was(picture: Any) -> None:
    async with picture().run_test(size=LARGE) as pilot:
        workbench = bench(pilot)
        workbench.prompt.focus()
        await arrive(pilot, *"ab", "left")
        pilot.app.post_message(AppBlur())
        await pilot.pause()
        pilot.app.post_message(Paste("-"))
        await arrive(pilot, "q")
        assert workbench.prompt.text == "a-qb"
        pilot.app.post_message(AppFocus())
        await arrive(pilot, "x")
        assert workbench.prompt.text == "a-qxb"


async def test_shrinking_and_back_keeps_the_focus(picture: Any) -> None:
    async with picture().run_test(size=LARGE) as pilot:
        workbench = await ran(pilot)
        workbench.prompt.focus()
        await pilot.pause()
        for size in (SMALL, LARGE, (200, 15), LARGE, (1, 1), LARGE):
            await pilot.resize_terminal(*size)
            await until(pilot, lambda: workbench.focused is workbench.prompt)
            await arrive(pilot, "2", "q")
        assert workbench.prompt.text == "Why is the sky blue?" + "2q" * 6
        assert workbench.run_params.decoder.name == "top_p"
        await pilot.resize_terminal(*SMALL)
        await pilot.pause(0.05)
        workbench.set_focus(None)
        pilot.app.post_message(Paste("more"))
        await arrive(pilot, "q")
        assert workbench.prompt.text.endswith("moreq")
        assert notices(pilot.app) == ["The paste is in the prompt: 4 characters."]


async def test_the_focus_outlives_many_sizes(picture: Any) -> None:
    async with picture().run_test(size=LARGE) as pilot:
        workbench = await ran(pilot)
        await arrive(pilot, "e")
        focused = workbench.focused
        for n in range(8):
            await pilot.resize_terminal(*((20 + n, 24), (80, 3 + n), (59 + n % 3, 16), LARGE)[n % 4])
        await until(pilot, lambda: workbench.focused is focused)


async def test_what_is_hidden_below_a_width_has_the_focus_again_above_it(picture: Any) -> None:
    async with picture().run_test(size=(160, 40)) as pilot:
        workbench = await ran(pilot)
        workbench.inspector.focus()
        await pilot.pause()
        for size in (SMALL, LARGE, (160, 40)):
            await pilot.resize_terminal(*size)
            await pilot.pause(0.1)
        await until(pilot, lambda: workbench.focused is workbench.inspector)


async def test_a_start_without_room_begins_in_the_prompt(picture: Any) -> None:
    async with picture().run_test(size=SMALL) as pilot:
        workbench = bench(pilot)
        await pilot.pause(0.1)
        await arrive(pilot, "q")
        await pilot.resize_terminal(*LARGE)
        await pilot.pause(0.1)
        await arrive(pilot, "2")
        assert workbench.prompt.text == "q2"


async def test_what_is_hidden_for_another_reason_loses_the_focus(picture: Any) -> None:
    async with picture().run_test(size=(160, 40)) as pilot:
        workbench = await ran(pilot)
        await arrive(pilot, "home", "enter")
        assert workbench.focused is workbench.inspector
        workbench.remove_class("-inspecting")
        await until(pilot, lambda: workbench.focused is not workbench.inspector)


async def test_a_paste_that_paused_or_is_too_long_is_said(picture: Any) -> None:
    async with picture().run_test(size=LARGE) as pilot:
        workbench = bench(pilot)
        await pilot.pause(0.1)
        pilot.app.post_message(PasteOpen())
        await pilot.pause()
        assert "without its end" in workbench.view.messages.message
        pilot.app.post_message(PasteRefused(LONGEST_PASTE + 1))
        await pilot.pause()
        assert notices(pilot.app)[0].startswith("The paste has 4,000,001 characters")
