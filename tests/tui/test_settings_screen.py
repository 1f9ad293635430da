"""The settings screen: what it lists follows from the schema, what it changes is in the user's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli
from textual.widgets import Input, OptionList, Static

from edge_tui import decoders
from edge_tui.config.schema import SCHEMA
from edge_tui.config.settings import load, user_config
from edge_tui.config.writer import ConfigError, change
from edge_tui.tui.keymap import Keymap, catalog
from edge_tui.tui.preferences import Preferences
from edge_tui.tui.screens.settings import SettingsScreen
from tests.tui.rendered import is_open, until


def preferences(**flags: Any) -> Preferences:
    return Preferences(load(flags, env={})[0], catalog(), Keymap({}), ["dark", "light"])


def written() -> dict[str, Any]:
    return tomli.loads(user_config().read_text())


def test_everything_is_listed_with_help_range_and_source() -> None:
    entries = {entry.key: entry for entry in preferences(strategy="beam").entries()}
    assert set(SCHEMA) <= set(entries)
    assert {f"parameters.{name}" for name in ("temperature", "beam.num_beams", "contrastive.alpha")} <= set(
        entries
    )
    assert {"keys.run", "keys.rerun", "keys.cursor_left"} <= set(entries)
    for entry in entries.values():
        assert entry.help, entry.key
        assert entry.range, entry.key
    assert entries["strategy"].source == "--strategy"
    assert entries["strategy"].choices == tuple(decoder.name for decoder in decoders.strategies())
    assert entries["ui.theme"].choices == ("dark", "light")
    assert not entries["device"].live


@pytest.mark.parametrize(
    ("key", "text", "table", "value"),
    [
        ("max_length", "99", (), 99),
        ("seed", "auto", (), "auto"),
        ("stop", '["a", "b"]', (), ["a", "b"]),
        ("ui.ascii", "true", ("ui",), True),
        ("chat", "false", (), False),
        ("strategy", "nucleus", (), "top_p"),
        ("parameters.temperature", "0.7", ("parameters",), 0.7),
        ("parameters.beam.early_stopping", "never", ("parameters", "beam"), "never"),
        ("parameters.top_k.top_k", "20", ("parameters", "top_k"), 20),
        ("keys.rerun", "f5", ("keys",), "f5"),
    ],
)
def test_a_typed_value_becomes_toml_and_holds(
    key: str, text: str, table: tuple[str, ...], value: Any
) -> None:
    at = preferences()
    assert at.set(key, text) == []
    found: Any = written()
    for name in table:
        found = found[name]
    assert found[key.rpartition(".")[2]] == value
    assert at.entry(key).source.startswith("config.toml:")
    assert at.unset(key) == []
    assert at.entry(key).source == "default"


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("max_length", "many", "max_length must be a whole number"),
        ("device", "gpu", "device must be auto, cpu"),
        ("strategy", "best", "There is no strategy"),
        ("parameters.temperature", "9", "temperature is 9.0, but must be"),
        ("parameters.temperature", "hot", "temperature is 'hot', but must be"),
        ("keys.rerun", "g", "g is the key of again (Workbench)"),
        ("keys.rerun", "ctrl+", "is no key"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_writes_nothing(key: str, text: str, said: str) -> None:
    with pytest.raises(ValueError) as raised:
        preferences().set(key, text)
    assert said in str(raised.value)
    assert not user_config().exists()


def test_a_broken_file_is_not_touched() -> None:
    user_config().parent.mkdir(parents=True)
    user_config().write_text("[ui\n")
    with pytest.raises(ConfigError):
        preferences().set("max_length", "9")
    assert user_config().read_text() == "[ui\n"


def test_steps_follow_the_kind() -> None:
    at = preferences()
    assert at.step("mode", 1) == "exploratory"
    assert at.step("ui.mouse", 1) == "false"
    assert at.step("max_length", 1) == "257"
    assert at.step("parameters.top_p.top_p", 1) == "0.91"
    assert at.step("models.name", 1) is None
    assert at.step("keys.run", 1) is None


def test_what_wins_over_the_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_TUI_MODE", "focused")
    at = Preferences(load()[0], catalog(), Keymap({}))
    at.set("mode", "exploratory")
    assert at.winning_source("mode") == "EDGE_TUI_MODE"
    assert at.settings.mode == "focused"


def test_what_wins_over_a_parameter_is_named() -> None:
    change(user_config(), {"mode": "focused", "parameters.top_p.top_p": 0.8})
    settings, _ = load({"parameters.top_p": 0.6})
    at = Preferences(settings, catalog(), Keymap({}))
    assert (at.entry("parameters.top_p.top_p").shown, at.winning_source("parameters.top_p.top_p")) == (
        "0.6",
        "--set",
    )
    assert at.entry("parameters.temperature").shown == "0.7"
    assert at.winning_source("parameters.temperature") == "mode = focused"
    assert at.winning_source("parameters.top_k.top_k") == ""


def test_template_variables_are_changed_as_toml() -> None:
    change(user_config(), {"template.enable_thinking": True})
    at = preferences()
    assert at.set("template.enable_thinking", "false") == []
    assert at.entry("template.enable_thinking").shown == "false"
    assert written()["template"] == {"enable_thinking": False}
    with pytest.raises(ValueError, match="with its quotes"):
        at.set("template.enable_thinking", "no")


# The screen.


def hint(app: Any) -> str:
    return str(app.screen.query_one(".hint", Static).render())


def at(app: Any) -> str:
    return app.screen.highlighted  # type: ignore[no-any-return]


async def test_changing_values_in_place(picture: Any, tmp_path: Path) -> None:
    user_config().parent.mkdir(parents=True)
    user_config().write_text('# mine\n[ui]\n# theme = "dark"\n')
    app = picture()
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.pause(0.2)
        app.workbench.pane.focus()
        await pilot.press("comma", *"temperature")
        assert at(app) == "parameters.temperature"
        await pilot.press("right", "right")
        assert written()["parameters"] == {"temperature": 1.1}
        assert app.workbench.run_params.settings.parameters[""] == {"temperature": 1.1}
        await pilot.press("enter")
        field = app.screen.query_one(Input)
        assert field.value == "1.1"
        field.value = "9"
        await pilot.pause()
        assert "must be" in hint(app)
        await pilot.press("enter")
        assert written()["parameters"] == {"temperature": 1.1}
        field.value = "0.5"
        await pilot.press("enter")
        assert written()["parameters"] == {"temperature": 0.5}
        assert "Kept in" in hint(app)
        assert field.value == "temperature"
        await pilot.press("ctrl+x")
        assert written() == {"ui": {}, "parameters": {}}
        assert user_config().read_text().startswith("# mine\n")

        field.value = "seed"
        await pilot.pause()
        found = [option.id for option in app.screen.query_one(OptionList).options]
        assert found[0] == "seed"
        assert "keys.quit" not in found, "its letters are in many a sentence"

        field.value = "ui.theme"
        await pilot.pause()
        await pilot.press("right", "right")
        assert app.theme == written()["ui"]["theme"] == "light"
        assert "# theme" not in user_config().read_text()

        field.value = "keys.rerun"
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("g")
        await until(pilot, lambda: "g is the key of again" in hint(app))
        await pilot.press("enter")
        await pilot.pause()
        await pilot.press("f7")
        await until(pilot, lambda: written().get("keys") == {"rerun": "f7"})
        assert app.keymap.keys == {"main.rerun": "f7"}
        field.value = "nothing like it"
        await pilot.pause()
        assert app.screen.query_one(OptionList).option_count == 0
        assert "Nothing matches" in hint(app)


async def test_the_list_stands_still_whatever_is_said_below_it(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.pause(0.2)
        app.workbench.pane.focus()
        await pilot.press("comma")
        await until(pilot, lambda: is_open(app, SettingsScreen))
        listing, below = app.screen.query_one(OptionList), app.screen.query_one(".hint", Static)
        seen = set()
        entries = app.preferences().entries()
        longest = sorted(
            range(listing.option_count), key=lambda at: -len(entries[at].help + entries[at].range)
        )
        for at in longest[:12]:
            listing.highlighted = at
            await pilot.pause()
            seen.add(listing.region)
            assert below.get_content_height(below.size, below.size, below.size.width) <= below.size.height
        assert len(seen) == 1


async def test_the_chosen_theme_is_there_at_the_next_start(picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(100, 40)) as pilot:
        await pilot.pause(0.2)
        app.workbench.pane.focus()
        await pilot.press("t", *"light")
        assert app.theme == "light"
        await pilot.press("enter")
        await until(pilot, lambda: "kept in" in app.workbench.view.messages.message)
    assert load(env={})[0].ui.theme == "light"
