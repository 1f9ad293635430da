"""The dialog of a chain, the sidebar's line, and the list of strategies in groups."""

from __future__ import annotations

from typing import Any

from textual.widgets import OptionList

from edge_tui import decoders
from edge_tui.tui.widgets.chain_line import ChainLine
from tests.tui.engines import PictureEngine
from tests.tui.rendered import lines, settle, until


def prompts(app: Any) -> list[str]:
    return [str(option.prompt) for option in app.screen.query_one(OptionList).options]


async def test_keys_change_the_chain_and_the_prompt_runs_under_it(picture: Any) -> None:
    engine = PictureEngine()
    engine.held = True
    app = picture(engine)
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        app.workbench.prompt.insert("Why?")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: app.workbench.pane.transcript is not None)
        await pilot.press("S", "down", "down", "space")
        assert engine.turned == [(1, "top_p", 1.0)]
        assert prompts(app)[2].endswith("off")
        shown = app.workbench.parameters.table
        assert shown.choose("top_p")
        assert shown.row.shown == "1", "the sidebar behind the dialog knows it too"
        await pilot.press("space", "K")
        assert engine.turned[-1] == (1, "top_p", 0.9)
        assert [line.split()[0] for line in prompts(app)] == ["penalties", "top-p", "temperature"]
        await pilot.press("a", *"min-p", "enter")
        assert app.workbench.run_params.decoder.name == "penalties+top_p+min_p+temperature"
        await pilot.press("up", "up", "K")
        await settle(pilot)
        assert "penalties is the first stage." in "\n".join(lines(app))
        assert len(engine.requests) == 1, "nothing runs while the dialog is open"
        await pilot.press("t", "x", "l", "escape")
        await until(pilot, lambda: len(engine.requests) == 2)
        assert engine.requests[1].strategy == "top_p+min_p+temperature"


async def test_the_sidebar_shows_a_chain_that_no_list_has(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        text = "\n".join(lines(app))
        assert "penalties→temperature→top-p" in text, "there is room for it without spaces"
        app.workbench.strategies.choose("min_p+temperature+top_k+typical+penalties")
        await settle(pilot)
        text = "\n".join(lines(app))
        assert "min-p→temperature→top-k→ty" in text
        assert "min_p+temp…" in text
        assert app.workbench.query_one(ChainLine).size.height == 1
        app.workbench.strategies.choose("beam:min_p")
        await settle(pilot)
        assert "penalties → beam → min-p" in "\n".join(lines(app))


async def test_strategies_stand_in_groups_until_something_is_typed(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(120, 50)) as pilot:
        await settle(pilot)
        app.workbench.strategies.choose("beam:min_p")
        await pilot.press("escape", "s")
        listed = prompts(app)
        assert listed[0] == "─ sampling"
        assert listed.index("─ search") < next(i for i, line in enumerate(listed) if "▸ 2 beam" in line)
        assert len(listed) == len(decoders.strategies()) + sum(line.startswith("─") for line in listed)
        assert app.screen.highlighted == "beam"
        await pilot.press("down", "down")
        assert app.screen.highlighted != "", "the cursor leaves headings out"
        await pilot.press(*"streams")
        assert not any(line.startswith("─") for line in prompts(app))
        assert app.screen.highlighted == "contrastive"
