"""The list of strategies where there are more of them than lines: what is chosen is in sight."""

from __future__ import annotations

from typing import Any

from textual.widgets import OptionList

from edge_tui import decoders
from edge_tui.tui.widgets.strategy_list import DIGITS
from tests.tui.rendered import lines, settle, until

LAST = decoders.strategies()[-1]


async def test_the_last_strategy_is_in_sight_at_every_height(demo: Any) -> None:
    app = demo(strategy=LAST.name)
    async with app.run_test(size=(80, 24)) as pilot:
        listed = app.workbench.view.strategy_list
        assert len(listed.decoders) > 2 * DIGITS
        assert [each.name for each in listed.lines][DIGITS:] == [LAST.name]
        assert any(f"▸  {LAST.title}" in line for line in lines(app))
        app.workbench.pane.focus()
        await pilot.press("s")
        await settle(pilot)
        options = app.screen.query_one(OptionList)
        assert options.option_count > options.size.height
        assert options.get_option_at_index(options.highlighted or 0).id == LAST.name
        in_sight = lambda: any(LAST.title in line and LAST.summary[:20] in line for line in lines(app))  # noqa: E731
        await until(pilot, in_sight)
        for height in (14, 30, 16):
            await pilot.resize_terminal(80, height)
            await settle(pilot)
            await until(pilot, in_sight)
        await pilot.press(*"sigma", "enter")
        await settle(pilot)
        assert listed.chosen == "top_n_sigma"
        assert listed.border_subtitle == "s: more"
