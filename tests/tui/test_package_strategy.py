"""A strategy of an installed package, from the registry to the sidebar and a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import OptionList

from edge_tui import decoders
from edge_tui.tui.screens.strategies import StrategiesScreen
from tests.decoders.test_registry import EPSILON, package
from tests.tui.rendered import is_open, lines, until


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[str]:
    """Its name."""
    text = EPSILON.format(name="from_pip")
    assert len(text.strip().splitlines()) <= 20
    with pytest.MonkeyPatch.context() as patch:
        package(tmp_path, "edge_eps_seen", "edge_eps_seen:Epsilon", text)
        patch.syspath_prepend(tmp_path)
        decoders.load()
        yield "from_pip"
    decoders.load()


async def test_it_is_in_the_registry_the_sidebar_and_the_list(announced: str, demo: Any) -> None:
    assert decoders.find(announced).title == "epsilon"
    app = demo(strategy=announced, max_length=4)
    async with app.run_test(size=(120, 40)) as pilot:
        bench = app.workbench
        assert bench.view.strategy_list.chosen == announced
        assert "epsilon" in [decoder.title for decoder in bench.view.strategy_list.decoders]
        assert bench.parameters.border_title == "epsilon"
        assert [row.key for row in bench.run_params.rows()][:2] == ["epsilon", "temperature"]
        shown = "\n".join(lines(app))
        assert "▸  epsilon" in shown, shown
        bench.prompt.insert("import os")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.pane.transcript and bench.session.run.finished)
        assert bench.session.run.started.strategy == announced
        await pilot.press("s", *"pip")
        await until(pilot, lambda: is_open(app, StrategiesScreen))
        await pilot.pause(0.1)
        assert app.screen.query_one(OptionList).get_option_at_index(0).id == announced
