"""A screen that rests shows what was put off for a moment, and what the engine and threads were asked."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable

import pytest

from edge_tui.engine.port import Question, Request
from edge_tui.tui.app import EdgeApp
from tests.history.runs import ScriptedEngine
from tests.tui.engines import PictureEngine
from tests.tui.rendered import lines, settle, until
from tests.tui.test_workbench import ended

LATER = 0.4
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


@pytest.mark.parametrize("stand_in", [PictureEngine, ScriptedEngine])
def test_no_answer_is_lost_to_the_thread_of_the_history(stand_in: Callable[[], PictureEngine]) -> None:
    engine, asked, taken = stand_in(), 3_000, 0
    engine.poll()
    ended = threading.Event()

    def drain() -> None:
        nonlocal taken
        while not ended.is_set():
            taken += len(engine.poll())

    history = threading.Thread(target=drain)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        history.start()
        for _ in range(asked):
            engine.explain(Question(Request(""), 0))
    finally:
        ended.set()
        history.join()
        sys.setswitchinterval(interval)
    assert taken + len(engine.poll()) == asked
