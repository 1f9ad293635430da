"""Keys, folding, focus and themes: what needs no model."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.engine.events import Failed
from edge_tui.tui.actions import ACTIONS, SCOPES, Scope, bindings
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.key_help import key_help, key_table
from edge_tui.tui.palette import ActionsProvider
from edge_tui.tui.screens.compare import CompareScreen
from edge_tui.tui.screens.confirm import ConfirmScreen
from edge_tui.tui.screens.explain import ExplainScreen
from edge_tui.tui.screens.filter_list import FilterListScreen
from edge_tui.tui.screens.help import HelpScreen
from edge_tui.tui.screens.history import HistoryScreen
from edge_tui.tui.screens.models import ModelsScreen
from edge_tui.tui.screens.presets import NameScreen, PresetsScreen
from edge_tui.tui.screens.settings import SettingsScreen
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.parameters import ParameterTable, ValueInput
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.tui.widgets.turns import Turns
from edge_tui.tui.workbench.screen import WorkbenchScreen
from tests.tui.engines import PictureEngine
from tests.tui.rendered import lines, notices, until

if TYPE_CHECKING:
    from textual.pilot import Pilot

CLASSES: dict[Scope, type] = {
    "app": EdgeApp,
    "main": WorkbenchScreen,
    "tokens": TokenPane,
    "inspector": Inspector,
    "turns": Turns,
    "parameters": ParameterTable,
    "models": ModelsScreen,
    "presets": PresetsScreen,
    "history": HistoryScreen,
    "settings": SettingsScreen,
    "list": FilterListScreen,
    "value": ValueInput,
    "explain": ExplainScreen,
    "compare": CompareScreen,
    "confirm": ConfirmScreen,
    "name": NameScreen,
    "help": HelpScreen,
}
"""The class that hears the keys of each scope."""


def bench(pilot: Pilot[Any]) -> WorkbenchScreen:
    app: Any = pilot.app
    return app.workbench


async def ran(pilot: Pilot[Any], prompt: str = "Why is the sky blue?") -> WorkbenchScreen:
    workbench = bench(pilot)
    await pilot.pause(0.1)
    workbench.prompt.insert(prompt)
    await pilot.press("ctrl+j")
    for _ in range(100):
        await pilot.pause(0.02)
        if workbench.pane.transcript is not None:
            return workbench
    raise AssertionError("nothing was shown")


def test_every_action_has_a_method_a_sentence_and_a_key_of_its_own() -> None:
    for scope in SCOPES:
        keys = [binding.key for binding in bindings(scope)]
        each = [key for joined in keys for key in joined.split(",")]
        assert len(each) == len(set(each)), scope
    for action in ACTIONS:
        assert action.help.endswith("."), action.id
        name = re.sub(r"\(.*", "", action.id)
        assert hasattr(CLASSES[action.scope], f"action_{name}"), action.id


def test_the_registry_holds_the_keys_of_every_screen_and_widget() -> None:
    assert set(CLASSES) == set(SCOPES)
    for scope, owner in CLASSES.items():
        assert vars(owner)["BINDINGS"] == bindings(scope), scope


def test_ids_are_unique_so_that_keys_can_be_remapped() -> None:
    ids = [binding.id for scope in SCOPES for binding in bindings(scope)]
    assert len(ids) == len(set(ids))
    assert all(ids)


def test_key_table_names_every_key() -> None:
    table = key_table()
    assert "| `^j` | run |" in table
    assert "| `1-9` | strategy |" in table
    assert all(heading in table for heading in key_help())


async def test_digits_choose_where_no_text_is_typed(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        await pilot.press("5")
        assert workbench.run_params.decoder is workbench.strategies.decoders[4]
        workbench.prompt.focus()
        await pilot.press("1")
        assert workbench.run_params.decoder is workbench.strategies.decoders[4]
        assert workbench.prompt.text.endswith("1")


async def test_printable_key_that_is_no_binding_goes_to_the_prompt(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        assert workbench.focused is workbench.pane
        await pilot.press("Q")
        assert workbench.focused is workbench.prompt
        await pilot.press("s", "é")
        assert workbench.prompt.text == "Why is the sky blue?Qsé"


async def test_switching_while_it_runs_cancels_and_runs_again(picture: Any) -> None:
    engine = PictureEngine()
    engine.held = True
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        await pilot.press("1")
        await pilot.pause(0.2)
        assert engine.cancelled == [1]
        assert [request.strategy for request in engine.requests] == ["top_p", "greedy"]
        assert engine.requests[1].prompt == engine.requests[0].prompt
        await pilot.press("escape")
        await pilot.pause(0.2)
        assert engine.cancelled == [1, 2]
        assert not workbench.session.busy
        await pilot.press("2")
        await pilot.pause(0.1)
        assert len(engine.requests) == 2, "what was stopped stays so, as the help says"
        assert "After esc it only chooses" in key_table()
        assert "r runs the prompt again with its seed" in workbench.view.messages.message
        await pilot.press("r")
        await pilot.pause(0.2)
        assert engine.requests[2].seed == engine.requests[1].seed


async def test_a_prompt_that_just_ran_runs_again_under_another_strategy(picture: Any) -> None:
    engine = PictureEngine()
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        assert not workbench.session.busy
        await pilot.press("2")
        await pilot.pause(0.2)
        assert [request.strategy for request in engine.requests] == ["top_p", "beam"]
        assert engine.requests[1].prompt == engine.requests[0].prompt
        assert engine.requests[1].seed == workbench.session.run.started.seed  # type: ignore[union-attr]
        await pilot.press("2")
        await pilot.pause(0.1)
        assert len(engine.requests) == 2, "it is that strategy already"
        workbench.prompt.insert(" And the sea?")
        await pilot.press("1")
        await pilot.pause(0.1)
        assert len(engine.requests) == 2, "another prompt waits to be finished"
        assert "^j runs it" in workbench.view.messages.message
        assert workbench.run_params.decoder is workbench.strategies.decoders[0]


async def test_no_second_run_before_the_first_has_wound_down(picture: Any) -> None:
    engine = PictureEngine()
    engine.held = True
    engine.cancel = lambda run=None: engine.cancelled.append(run)  # type: ignore[method-assign]
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        await pilot.press("1", "3", "2")
        await pilot.pause(0.3)
        assert len(engine.requests) == 1
        assert engine.cancelled == [1]
        assert "stopping" in workbench.view.header.state
        assert "Queued" in workbench.view.messages.message
        engine.events.append(engine.finish(1))
        await pilot.pause(0.2)
        assert [request.strategy for request in engine.requests] == ["top_p", "beam"]


async def test_parameters_by_arrows_and_by_typing(picture: Any) -> None:
    engine = PictureEngine()
    engine.held = True
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        table = workbench.parameters.table
        await pilot.press("e")
        assert workbench.focused is table
        table.choose("top_p")
        await pilot.press("left")
        assert workbench.run_params.rows()[0].shown == "0.89"
        assert engine.turned == [(1, "top_p", 0.89)]
        await pilot.press("enter")
        assert workbench.focused is workbench.parameters.field
        await pilot.press(*"1.7", "enter")
        assert "1.7, but must be a number from 0 to 1" in str(workbench.parameters.help_line.content)
        assert workbench.parameters.has_class("-refused")
        assert workbench.parameters.field.value == "1.7"
        await pilot.press("backspace", "backspace", "backspace", *".5", "enter")
        await pilot.pause()
        assert workbench.focused is table
        assert engine.turned[-1] == (1, "top_p", 0.5)
        assert table.row.changed
        await pilot.press("backspace")
        assert not table.row.changed


async def test_typing_in_a_field_is_no_command(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = bench(pilot)
        workbench.parameters.table.focus()
        workbench.parameters.table.choose("system")
        await pilot.press("enter", *"sm1", "escape")
        assert workbench.run_params.system == ""
        await pilot.press("enter", *"You x.", "enter")
        assert workbench.run_params.system == "You x."
        assert workbench.run_params.decoder.name == "top_p"


@pytest.mark.parametrize("size", [(60, 16), (80, 24), (160, 45)])
async def test_everything_is_there_or_one_key_away(picture: Any, size: tuple[int, int]) -> None:
    async with picture().run_test(size=size) as pilot:
        workbench = await ran(pilot)
        for widget in (workbench.prompt, workbench.pane, workbench.view.strategy_list, workbench.view.gauge):
            assert widget.region.height >= 1
            assert widget.region.right <= size[0]
            assert widget.region.bottom <= size[1]
        await pilot.press("b")
        await pilot.pause()
        assert not workbench.view.strategy_list.region.width
        await pilot.press("b")
        if not workbench.inspector.region.width:
            await pilot.press("i")
            await pilot.pause()
        assert workbench.inspector.region.width >= 28
        await pilot.press("e")
        await pilot.pause()
        assert workbench.parameters.table.region.height >= 1


async def test_too_small_says_so_and_recovers(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        lines = workbench.pane.virtual_size.height
        await pilot.resize_terminal(50, 12)
        await pilot.pause(0.1)
        notice = workbench.query_one("#too-small")
        assert notice.region.width == 50
        # Wrapped to no width, each character would be a line on the way back.
        assert workbench.pane.virtual_size.height == lines
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.1)
        assert workbench.pane.region.width > 30
        assert workbench.prompt.text


async def test_a_storm_of_resizes_leaves_it_alive(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        for width, height in [(1, 1), (250, 80), (3, 90), (200, 2), (61, 17), (149, 33), (150, 34)]:
            await pilot.resize_terminal(width, height)
        await pilot.resize_terminal(80, 24)
        await pilot.pause(0.1)
        assert len(workbench.pane.transcript or ()) > 10


async def test_themes_show_while_one_chooses(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await ran(pilot)
        await pilot.press("t", "down")
        await pilot.pause(0.1)
        assert app.theme == "light"
        await pilot.press("escape")
        assert app.theme == "dark"
        await pilot.press("t", *"16", "enter")
        await pilot.pause(0.1)
        assert app.theme == "ansi-16"
        assert bench(pilot).pane.has_class("-no-hue")


async def test_palette_knows_every_offered_action(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: app.screen is not workbench)
        await pilot.press(*": beam")
        await until(pilot, lambda: any("strategy: beam" in line for line in lines(app)))
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is workbench)
        await until(pilot, lambda: workbench.run_params.decoder.name == "beam")


async def test_the_palette_finds_words_and_not_letters_here_and_there(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await ran(pilot)
        palette = ActionsProvider(app.screen)

        async def found(query: str) -> list[str]:
            return [str(hit.match_display) async for hit in palette.search(query)]

        assert not await found("svg")  # "Stop everything and leave" has these letters in this order
        assert "quit" in await found("leave everything")
        assert "quit" in await found("qit")


async def test_errors_are_text_kept_and_shown_at_the_field(picture: Any) -> None:
    engine = PictureEngine()
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        bad = "temperature is [/] -1\x1b[2J, but must be a number from 0 to 5."
        engine.events.append(Failed(bad, field="temperature"))
        await pilot.pause(0.3)
        assert workbench.view.messages.kind == "error"
        assert "[/] -1␛[2J" in workbench.view.messages.message
        assert workbench.parameters.table.row.key == "temperature"
        assert workbench.parameters.has_class("-refused")
        assert workbench.prompt.text


async def test_keys_can_be_remapped(picture: Any) -> None:
    app = picture()
    app.settings = replace(app.settings, keys={"strategies": "f5", "nonsense": "f6"})
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        await pilot.press("f5")
        assert app.screen is not workbench


async def test_no_colour_keeps_its_meaning(picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with picture().run_test(size=(80, 24)) as pilot:
        assert (await ran(pilot)).pane.has_class("-no-hue")


async def test_a_theme_nobody_has_and_a_broken_one_are_notices(picture: Any, tmp_path: Path) -> None:
    app = picture(theme="neon")
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        assert app.theme == "dark"
        assert any("neon" in notice for notice in notices(app))


async def test_many_notices_share_one_place() -> None:
    app = EdgeApp(
        PictureEngine,
        Settings(),
        notices=[f"config.toml:{line}: a[b]c: must be true or false." for line in range(1, 8)],
        theme_folders=[resources.themes()],
    )
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: notices(app))
        (notice,) = notices(app)
        assert all(f"config.toml:{line}: a[b]c" in notice for line in (1, 2, 3))
        assert "And 4 more: `edge-tui config`" in notice


async def test_header_survives_any_model_name(picture: Any) -> None:
    async with picture().run_test(size=(60, 16)) as pilot:
        workbench = await ran(pilot)
        workbench.view.header.model = "x" * 300
        await pilot.pause()
        assert workbench.view.header.render().cell_length <= 60


async def test_a_long_paste_is_kept_whole(picture: Any) -> None:
    from textual import events

    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        app.post_message(events.Paste("word " * 40_000))
        await pilot.pause(0.5)
        assert len(bench(pilot).prompt.text) == 200_000


async def test_a_mistake_of_ours_goes_to_the_log_and_the_terminal_is_restored(
    picture: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    app = picture()
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is raised when the block is left
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause(0.1)
            app.workbench.call_later(lambda: 1 // 0)
            await pilot.pause(0.2)
    assert [path for path in tmp_path.rglob("crash-*.log") if "ZeroDivisionError" in path.read_text()]
    assert app.return_code == 1
