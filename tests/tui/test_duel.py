"""Two strategies on one prompt and seed, on the shipped models."""

from __future__ import annotations

from typing import Any

import pytest

from edge_tui.history.recorder import Recorder
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui.screens.compare import CompareScreen
from tests.tui.rendered import is_open
from tests.tui.test_workbench import bench, press, until

LENGTH = 40


async def test_a_duel_is_decoded_in_turn_kept_and_taken(demo: Any) -> None:
    app = demo(max_length=LENGTH, strategy="top_p", seed=7)
    app.session.recorder = Recorder(lambda: Store(default_path()))
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = bench(pilot)
        await until(pilot, lambda: workbench.session.loaded)
        workbench.prompt.insert("The wind outside the old")
        await press(pilot, "escape", "vertical_line", "3")
        await until(pilot, lambda: is_open(app, CompareScreen))
        screen = app.screen
        first, second = workbench.session.run, workbench.session.beside
        await until(pilot, lambda: not (first.active or second.active) and screen.found.diverges)
        assert [run.request.strategy for run in (first, second)] == ["top_p", "top_k"]
        assert first.started.seed == second.started.seed == 7
        common = screen.found.common_length
        ids = first.transcript.ids(), second.transcript.ids()
        assert ids[0][:common] == ids[1][:common]
        assert ids[0][common] != ids[1][common]
        await until(pilot, lambda: [pane.cursor for pane in screen.panes] == [common, common])
        assert screen.has_class("-at-parting")
        assert "They part because top-k 50 cut “" in screen.shown_reason
        # The engine tells luck and sums of both sides once they have ended, and each token's ladder.
        await until(pilot, lambda: "luck" in screen.shown_reason and "● takes it" in screen.shown_reason)
        assert "They part because top-k 50 cut “" in screen.shown_reason
        await until(pilot, lambda: all(each.ladder.why is not None for each in screen.inspectors))
        assert [each.ladder.why.token for each in screen.inspectors] == [each[common] for each in ids]
        # Both cursors move, and stay in sight at another size.
        await press(pilot, "tab", "right")
        await until(pilot, lambda: [pane.cursor for pane in screen.panes] == [common + 1, common + 1])
        assert not screen.has_class("-at-parting")
        await until(pilot, lambda: all(each.ladder.why is not None for each in screen.inspectors))
        assert [each.ladder.why.token for each in screen.inspectors] == [each[common + 1] for each in ids]
        await pilot.resize_terminal(160, 45)
        await until(pilot, lambda: screen.has_class("-beside") and screen.panes[0].shows_cursor)
        await pilot.resize_terminal(60, 16)
        await until(pilot, lambda: not screen.has_class("-beside"))
        await until(pilot, lambda: all(pane.shows_cursor for pane in screen.panes))
        assert [pane.cursor for pane in screen.panes] == [common + 1, common + 1]
        await press(pilot, "enter")
        await until(pilot, lambda: app.screen is workbench)
        assert workbench.session.current is second
        assert workbench.run_params.decoder.name == "top_k"
        await until(pilot, lambda: workbench.pane.transcript is second.transcript)
        await until(pilot, lambda: workbench.pane.cursor == common + 1)
        store = app.history()
        await until(pilot, lambda: [entry.state for entry in store.runs()] == ["finished"] * 2)
        assert {entry.strategy: entry.tokens for entry in store.runs()} == {"top_p": LENGTH, "top_k": LENGTH}


@pytest.mark.proof
async def test_esc_leaves_a_duel_that_goes_on_with_the_first_run_alone(demo: Any) -> None:
    app = demo(max_length=1500, strategy="top_p", seed=2)
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = bench(pilot)
        await until(pilot, lambda: workbench.session.loaded)
        workbench.prompt.insert("def f(x):")
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: workbench.pane.transcript)
        await press(pilot, "vertical_line", "5")
        await until(pilot, lambda: is_open(app, CompareScreen) and app.screen.found)
        first, second = workbench.session.run, workbench.session.beside
        await until(pilot, lambda: len(second.transcript) > 5)
        await press(pilot, "escape")
        await until(pilot, lambda: app.screen is workbench)
        length = len(first.transcript)
        await until(pilot, lambda: len(first.transcript) > length + 10)
        assert workbench.session.run is first
        assert first.active
