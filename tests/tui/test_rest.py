"""A screen that rests shows what was put off for a moment, and what the engine was asked."""

from __future__ import annotations

from collections.abc import Callable

from edge_tui.tui.app import EdgeApp
from tests.tui.rendered import lines, settle, until
from tests.tui.test_workbench import ended


async def test_a_count_that_comes_a_moment_later(picture: Callable[..., EdgeApp]) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        pilot.app.workbench.prompt.insert("Why is the sky blue?")
        await settle(pilot)
        assert any("5 of 32,768 tokens" in line for line in lines(pilot.app))


async def test_an_answer_of_the_engine(picture: Callable[..., EdgeApp]) -> None:
    async with picture().run_test(size=(200, 50)) as pilot:
        bench = pilot.app.workbench
        bench.prompt.insert("Why is the sky blue?")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.transcript is not None and ended(bench))
        await pilot.press("h")
        await settle(pilot)
        assert any("Nothing is computed here." in line for line in lines(pilot.app))
