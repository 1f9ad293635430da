"""A screen that rests shows what was put off for a moment, and what the engine and threads were asked."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from edge_tui.engine.port import Question
from edge_tui.tui.app import EdgeApp
from tests.tui.engines import PictureEngine
from tests.tui.rendered import lines, settle, until
from tests.tui.test_workbench import ended

LATER = 0.8
"""Seconds that a change is put off: many times the tick between two frames."""


async def test_a_change_that_was_put_off(picture: Callable[..., EdgeApp]) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        pilot.app.workbench.set_timer(LATER, lambda: pilot.app.say("This came later."))
        await settle(pilot)
        assert any("This came later." in line for line in lines(pilot.app))


async def test_what_a_worker_brings(picture: Callable[..., EdgeApp]) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        await settle(pilot)

        async def work() -> None:
            await asyncio.sleep(LATER)
            pilot.app.say("A worker brought this.")

        pilot.app.run_worker(work())
        await settle(pilot)
        assert any("A worker brought this." in line for line in lines(pilot.app))


class Slow(PictureEngine):
    """Answers questions later."""

    def explain(self, question: Question) -> int:
        number = super().explain(question)
        answer = self.events.pop()
        threading.Timer(LATER, lambda: self.events.append(answer)).start()
        return number


async def test_an_answer_of_the_engine(picture: Callable[..., EdgeApp]) -> None:
    async with picture(Slow()).run_test(size=(200, 50)) as pilot:
        bench = pilot.app.workbench
        bench.prompt.insert("Why is the sky blue?")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.transcript is not None and ended(bench))
        await settle(pilot)
        await pilot.press("h")
        await settle(pilot)
        assert any("Nothing is computed here." in line for line in lines(pilot.app))
