"""The tour: five steps, each waits until it was done."""

from __future__ import annotations

from typing import Any

from edge_tui.tui.widgets.tour import STEPS, has_toured
from tests.tui.rendered import until
from tests.tui.test_workbench import ended


async def test_five_steps_on_the_demo_pair(demo: Any) -> None:
    app = demo(max_length=12)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = app.workbench
        bench.view.tour.begin()

        async def at(number: int | None) -> None:
            for _ in range(400):
                step = bench.view.tour.step
                if (step is None) if number is None else (step is not None and step is STEPS[number - 1]):
                    return
                await pilot.pause(0.025)
            raise AssertionError(f"step {number} never came; it is {bench.view.tour.step}")

        await at(1)
        assert bench.view.tour.display
        await pilot.press(*"def fibonacci(n):", "ctrl+j")
        await at(2)
        await until(pilot, lambda: ended(bench) and app.all_painted)  # there is a token to walk to
        await pilot.press("left")
        await at(3)
        await pilot.press("2", "ctrl+j")
        await at(4)
        await pilot.press("e", "right")
        await at(5)
        assert not has_toured()
        await pilot.press("question_mark")
        await at(None)
        assert not bench.view.tour.has_class("-shown")
    assert has_toured()


async def test_it_is_left_by_a_key_and_comes_back_by_it(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        bench = app.workbench
        assert not bench.view.tour.display
        await pilot.press("f2")
        assert bench.view.tour.display
        assert "1 of 5" in str(bench.view.tour.border_title)
        await pilot.press("f2")
        assert not bench.view.tour.display
        assert has_toured()
