"""Keys, folding, focus and themes: what needs no model."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from edge_tui.config.settings import Settings
from edge_tui.tui.actions import ACTIONS, SCOPES, Scope, bindings
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.key_help import key_help, key_table
from edge_tui.tui.palette import ActionsProvider
from edge_tui.tui.screens.chain import ChainScreen
from edge_tui.tui.screens.compare import CompareScreen
from edge_tui.tui.screens.confirm import ConfirmScreen
from edge_tui.tui.screens.explain import ExplainScreen
from edge_tui.tui.screens.filter_list import FilterListScreen
from edge_tui.tui.screens.help import HelpScreen
from edge_tui.tui.screens.history import HistoryScreen
from edge_tui.tui.screens.lessons import LessonsScreen
from edge_tui.tui.screens.models import ModelsScreen
from edge_tui.tui.screens.presets import NameScreen, PresetsScreen
from edge_tui.tui.screens.read_prompt import ReadPromptScreen
from edge_tui.tui.screens.settings import SettingsScreen
from edge_tui.tui.widgets.inspector import Inspector
from edge_tui.tui.widgets.lesson_card import LessonCard
from edge_tui.tui.widgets.parameters import ParameterTable, ValueInput
from edge_tui.tui.widgets.prompt_tokens import PromptTokens
from edge_tui.tui.widgets.side_pane import SidePane
from edge_tui.tui.widgets.token_pane import TokenPane
from edge_tui.tui.widgets.turns import Turns
from edge_tui.tui.workbench.screen import WorkbenchScreen
from tests.tui.engines import PictureEngine
from tests.tui.test_workbench import until

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
    "lesson": LessonCard,
    "lessons": LessonsScreen,
    "presets": PresetsScreen,
    "history": HistoryScreen,
    "settings": SettingsScreen,
    "chain": ChainScreen,
    "list": FilterListScreen,
    "value": ValueInput,
    "explain": ExplainScreen,
    "compare": CompareScreen,
    "side": SidePane,
    "reading": ReadPromptScreen,
    "prompt": PromptTokens,
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
    workbench.prompt.insert(prompt)
    await pilot.press("ctrl+j")
    await until(pilot, lambda: workbench.pane.transcript)
    return workbench


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


async def test_keys_are_commands_where_no_text_is_typed_and_text_elsewhere(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        await pilot.press("5")
        assert workbench.run_params.decoder is workbench.strategies.decoders[4]
        await pilot.press("Q")  # bound to nothing
        assert workbench.focused is workbench.prompt
        await pilot.press("1", "s", "é")
        assert workbench.run_params.decoder is workbench.strategies.decoders[4]
        assert workbench.prompt.text == "Why is the sky blue?Q1sé"


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


@pytest.mark.parametrize("size", [(60, 16), (120, 40)])
async def test_everything_is_there_or_one_key_away(picture: Any, size: tuple[int, int]) -> None:
    async with picture().run_test(size=size) as pilot:
        workbench = await ran(pilot)
        view = workbench.view
        for widget in (view.prompt, view.pane, view.strategy_list, view.gauge):
            assert widget.region.height >= 1
            assert widget.region.right <= size[0]
            assert widget.region.bottom <= size[1]
        view.header.model = "x" * 300
        assert view.header.render().cell_length <= size[0]
        await pilot.press("b")
        assert not view.strategy_list.region.width
        await pilot.press("b")
        if not view.inspector.region.width:
            await pilot.press("i")
        assert view.inspector.region.width >= 28
        await pilot.press("e")
        assert view.parameters.table.region.height >= 1


async def test_any_size_leaves_it_alive_and_too_small_says_so(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        for width, height in ((1, 1), (400, 60), (149, 33), (80, 24)):
            await pilot.resize_terminal(width, height)
        lines = workbench.pane.virtual_size.height
        await pilot.resize_terminal(50, 12)
        await until(pilot, lambda: workbench.query_one("#too-small").region.width == 50)
        # Wrapped to no width, each character would be a line on the way back.
        assert workbench.pane.virtual_size.height == lines
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: workbench.pane.region.width > 30)
        assert workbench.prompt.text
        assert len(workbench.pane.transcript or ()) > 10


async def test_the_first_notices_share_one_place(picture: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = replace(Settings(), ui=replace(Settings().ui, theme="neon"))
    notices = [f"config.toml:{line}: a[b]c: must be true or false." for line in range(1, 6)]
    app = EdgeApp(PictureEngine, settings, notices=notices)
    said: list[str] = []
    monkeypatch.setattr(app, "notify", lambda text, **_: said.append(text))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: said)
        assert app.theme == "dark"
    (notice,) = said
    assert notice.count("a[b]c") == 3
    assert "And 3 more: `edge-tui config`" in notice


async def test_themes_show_while_one_chooses(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await ran(pilot)
        await pilot.press("t", "down")
        await until(pilot, lambda: app.theme == "light")
        await pilot.press("escape")
        assert app.theme == "dark"
        await pilot.press("t", *"16", "enter")
        await until(pilot, lambda: bench(pilot).pane.has_class("-no-hue"))
        assert app.theme == "ansi-16"


async def test_the_palette_runs_what_it_finds_by_words(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        workbench = await ran(pilot)
        palette = ActionsProvider(app.screen)

        async def found(query: str) -> list[str]:
            return [str(hit.match_display) async for hit in palette.search(query)]

        assert not await found("svg")  # "Stop everything and leave" has these letters in this order
        assert "quit" in await found("leave everything")
        assert "quit" in await found("qit")
        hits = [hit async for hit in palette.search("strategy: beam")]
        beam = max(hits, key=lambda hit: hit.score)
        beam.command()
        assert workbench.run_params.decoder.name == "beam"


async def test_a_long_paste_is_kept_whole(picture: Any) -> None:
    from textual import events

    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.1)
        app.post_message(events.Paste("word " * 40_000))
        await until(pilot, lambda: len(bench(pilot).prompt.text) == 200_000)
