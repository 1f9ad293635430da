"""What the keys do, on the real engine and the embedded models."""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import OptionList

from edge_tui.engine import events
from edge_tui.engine.port import ModelSpec
from edge_tui.tui.screens.confirm import ConfirmScreen
from edge_tui.tui.screens.models import ModelsScreen
from edge_tui.tui.workbench.screen import WorkbenchScreen
from tests.tui.rendered import is_open, was_said

if TYPE_CHECKING:
    from textual.pilot import Pilot

PROMPT = "def fibonacci(n):"
SIZE = (120, 40)


async def until(pilot: Pilot[Any], holds: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)


async def press(pilot: Pilot[Any], *keys: str, between: float = 0.03) -> None:
    """Presses keys. `Pilot.press` waits for an idle processor, which a decode does not leave."""
    for key in keys:
        pilot.app.simulate_key(key)
        await asyncio.sleep(between)


def bench(pilot: Pilot[Any]) -> WorkbenchScreen:
    app: Any = pilot.app
    return app.workbench


async def start(pilot: Pilot[Any], prompt: str = PROMPT) -> WorkbenchScreen:
    """Waits for the model, types, runs, waits for the first tokens."""
    workbench = bench(pilot)
    await until(pilot, lambda: ready(workbench))
    workbench.prompt.insert(prompt)
    await press(pilot, "ctrl+j")
    await until(pilot, lambda: shown(workbench) > 3)
    return workbench


def shown(workbench: WorkbenchScreen) -> int:
    transcript = workbench.pane.transcript
    return len(transcript) if transcript is not None else 0


def ready(workbench: WorkbenchScreen) -> bool:
    """Whether the model is there and the screen has said so, over whatever is said after a key."""
    return bool(workbench.session.loaded) and not workbench.session.unpainted


def ended(workbench: WorkbenchScreen) -> bool:
    """Whether the run is over and painted to its end: the screen may be a seventh of a second behind."""
    session = workbench.session
    return not session.busy and not session.unpainted and workbench.pane.laid_out == shown(workbench)


async def test_run_streams_to_the_end_and_says_how_it_went(demo: Any) -> None:
    app = demo(max_length=40, seed=3, strategy="top_k")
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        assert workbench.focused is workbench.pane
        await until(pilot, lambda: ended(workbench))
        await until(pilot, lambda: was_said("tok/s"))
        assert shown(workbench) == 40
        assert was_said("40 tokens")
        assert was_said("seed 3")
        assert workbench.view.gauge.speed.written == 40
        assert workbench.view.gauge.speed.mean is not None
        assert workbench.prompt.text == PROMPT


async def test_escape_stops_and_c_continues_in_place(demo: Any) -> None:
    app = demo(max_length=1500, strategy="top_p", seed=1)
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        await press(pilot, "escape")
        await until(pilot, lambda: ended(workbench))
        run = workbench.session.run
        assert run is not None
        assert run.finished is not None
        assert run.finished.reason == "cancelled"
        kept = run.transcript.ids() if run.transcript is not None else ()
        await press(pilot, "c")
        await until(pilot, lambda: shown(workbench) > len(kept) + 5)
        transcript = workbench.pane.transcript
        assert transcript is not None
        assert transcript.ids(len(kept)) == kept
        assert transcript.started.seed == 1


async def test_digit_during_a_run_runs_the_same_prompt_under_that_strategy(demo: Any) -> None:
    app = demo(max_length=1500, strategy="top_p")
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        first = workbench.session.run
        workbench.prompt.insert(" edited since")
        await press(pilot, "1")
        await until(pilot, lambda: workbench.session.run is not first and shown(workbench) > 3)
        run = workbench.session.run
        assert run is not None
        assert run.request.strategy == "greedy"
        assert run.request.prompt == PROMPT
        await until(pilot, lambda: workbench.session.run.started is not None)  # type: ignore[union-attr]
        assert run.started is not None
        assert first is not None
        assert first.started is not None
        assert run.started.seed == first.started.seed, "so that one sees what the strategy did"
        assert first is not None
        assert first.finished is not None
        assert first.finished.reason == "cancelled"
        assert workbench.view.strategy_list.chosen == "greedy"


async def test_beam_shows_its_board(demo: Any) -> None:
    app = demo(max_length=24, strategy="beam")
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = await start(pilot)
        await until(pilot, lambda: ended(workbench))
        assert workbench.view.board.display
        await press(pilot, "w")
        await until(pilot, lambda: not workbench.view.board.display)


async def test_contrastive_shows_both_models_numbers(demo: Any) -> None:
    app = demo(max_length=12, strategy="contrastive")
    async with app.run_test(size=(160, 45)) as pilot:
        workbench = await start(pilot)
        await until(pilot, lambda: ended(workbench))
        assert "demo/amateur" in workbench.view.header.model
        await press(pilot, "h")
        await until(pilot, lambda: workbench.pane.cursor is not None)
        token = workbench.pane.transcript.token(workbench.pane.cursor or 0)  # type: ignore[union-attr]
        assert {"expert", "amateur", "score"} <= set(token.extras)
        await pilot.pause()
        assert workbench.inspector.display


async def test_turning_a_parameter_during_a_run_holds_within_four_tokens(demo: Any) -> None:
    app = demo(max_length=1500, strategy="top_p")
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        table = workbench.parameters.table
        table.choose("temperature")
        table.focus()
        await pilot.pause()
        before = shown(workbench)
        await press(pilot, "right")
        transcript = workbench.pane.transcript
        assert transcript is not None
        await until(pilot, lambda: transcript.changes)
        change = transcript.changes[0]
        assert change.name == "temperature"
        assert change.value == pytest.approx(
            workbench.run_params.value(workbench.run_params.param("temperature"))[0]
        )  # type: ignore[arg-type]
        assert change.index >= before - 4
        assert table.row.changed


async def test_alternative_cuts_there_and_goes_on(demo: Any) -> None:
    app = demo(max_length=30, strategy="greedy")
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        await until(pilot, lambda: ended(workbench))
        old = workbench.pane.transcript
        assert old is not None
        workbench.pane.cursor = 5
        await press(pilot, "enter")
        await until(pilot, lambda: workbench.focused is workbench.inspector)
        await press(pilot, "enter")
        await until(pilot, lambda: workbench.pane.transcript is not old and ended(workbench))
        new = workbench.pane.transcript
        assert new is not None
        assert new.ids(5) == old.ids(5)
        assert new.ids(6)[5] == next(a.id for a in old.token(5).top if a.id != old.token(5).id)
        assert len(new) > 6


async def test_an_empty_prompt_and_one_that_is_too_long_are_refused_and_what_is_shown_goes_on(
    demo: Any,
) -> None:
    app = demo(max_length=6)
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        await until(pilot, lambda: ended(workbench))
        ids = workbench.pane.transcript.ids()
        for text, why in (("", "empty"), ("word " * 3000, "context holds")):
            workbench.prompt.text = text
            await press(pilot, "ctrl+j")
            await until(pilot, lambda why=why: was_said(why))
            assert workbench.prompt.text == text
            assert workbench.pane.transcript.ids() == ids
        await press(pilot, "c")
        await until(pilot, lambda: shown(workbench) == 12)
        assert workbench.pane.transcript.ids(6) == ids


async def test_missing_model_is_one_sentence_and_the_app_lives(demo: Any) -> None:
    app = demo(max_length=5)
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        await until(pilot, lambda: ended(workbench))  # whose message would stand over the error
        app.session.assign("model", ModelSpec("nobody/[bold]nothing[/bold]"), app.settings.models)
        await until(pilot, lambda: workbench.view.messages.kind == "error")
        assert "nobody/[bold]nothing[/bold]" in workbench.view.messages.message
        assert workbench.prompt.text == PROMPT
        app.session.assign("model", ModelSpec("demo/amateur"), app.settings.models)
        await until(pilot, lambda: workbench.view.header.model == "demo/amateur")


async def test_estimates_count_the_strategys_rows_and_the_other_model(demo: Any) -> None:
    app = demo(strategy="contrastive")
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = bench(pilot)
        await until(pilot, lambda: ready(workbench))
        screen = await open_models(pilot)
        await until(pilot, lambda: re.search(r"with demo/amateur [\d.]+ .B of", told(screen)))
        app.session.assign("amateur", ModelSpec("demo/amateur"), app.settings.models)
        await until(pilot, lambda: "with demo/amateur" not in told(screen))
        await press(pilot, "escape")
        await until(pilot, lambda: app.screen is workbench)
        workbench.strategies.choose("beam")
        screen = await open_models(pilot)
        await press(pilot, *"expert")
        await until(pilot, lambda: re.search(r"KV [\d.]+ .B for 4 rows", told(screen)))


async def open_models(pilot: Pilot[Any]) -> Any:
    """The models screen with its list; the key that opens it waits for the focus to have left the prompt."""
    workbench = bench(pilot)
    workbench.pane.focus()
    await until(pilot, lambda: workbench.focused is workbench.pane)
    await press(pilot, "m")
    await until(pilot, lambda: is_open(pilot.app, ModelsScreen))
    screen: Any = pilot.app.screen
    await until(pilot, lambda: sum(each.option_count for each in screen.query(OptionList)) >= 2)
    return screen


def told(screen: Any) -> str:
    return str(screen.query_one(".hint").render())


async def test_a_quit_in_the_middle_of_a_run_waits_for_the_engines_thread(demo: Any) -> None:
    app = demo(max_length=1500)
    async with app.run_test(size=SIZE) as pilot:
        await start(pilot)
        await press(pilot, "ctrl+q")
        await until(pilot, lambda: app.return_code is not None)
    assert app.return_code == 0
    assert app.shutdown.clean
    assert not app.session.engine.alive()


async def test_no_thread_outlives_an_app_that_was_not_quit(demo: Any) -> None:
    before = set(threading.enumerate())
    async with demo(max_length=6).run_test(size=SIZE) as pilot:
        await start(pilot)
        assert {thread.name for thread in threading.enumerate()} >= {"watch *.toml", "watch [!_]*.py"}
    patience = time.monotonic() + 60.0
    left = ["?"]
    while left and time.monotonic() < patience:
        await asyncio.sleep(0.02)
        new = set(threading.enumerate()) - before
        left = [thread.name for thread in new if not thread.name.startswith("asyncio")]
    assert not left


async def test_engine_death_offers_a_restart(demo: Any) -> None:
    app = demo(max_length=6)
    async with app.run_test(size=SIZE) as pilot:
        workbench = await start(pilot)
        old = workbench.session.engine
        assert old is not None
        old.close(2.0)
        news = [events.Died("The engine's thread ended; restart it.")]
        old.poll = lambda: [news.pop()] if news else []  # type: ignore[method-assign]
        await until(pilot, lambda: is_open(app, ConfirmScreen))
        await press(pilot, "enter")
        await until(pilot, lambda: workbench.session.engine is not old and ready(workbench))
        assert workbench.prompt.text == PROMPT
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: ended(workbench) and shown(workbench) == 6)
