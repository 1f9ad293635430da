"""Parameters that are text in the sidebar: typed, refused, saved with a preset, taken back from a run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input

from edge_tui import decoders
from edge_tui.config import presets, resources
from edge_tui.config.settings import Settings, load
from edge_tui.decoders.base import ParamError, TextParam
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec
from edge_tui.history.recorder import Recorder
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.preferences import Preferences
from edge_tui.tui.run_params import ParamPatch, RunParams
from edge_tui.tui.run_settings import read_text, write_text
from edge_tui.tui.screens.history import HistoryScreen
from edge_tui.tui.widgets.parameters import ParameterTable
from tests.ban import BAN, write_ban
from tests.tui.rendered import is_open
from tests.tui.test_workbench import press, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def folder(home: Path) -> Iterator[Path]:
    yield write_ban()
    decoders.load()


@pytest.fixture
def ban(folder: Path) -> RunParams:
    settings, notices = load({}, {})
    assert notices == []
    return RunParams(settings, decoders.find("ban"))


def shown(ban: RunParams, key: str) -> str:
    return next(row.shown for row in ban.rows() if row.key == key)


@given(texts=st.lists(st.text(min_size=1)), one=st.text())
def test_what_is_typed_is_what_was_written(texts: list[str], one: str) -> None:
    assert read_text(TextParam("a", many=True), write_text(tuple(texts))) == tuple(texts)
    assert read_text(TextParam("a"), write_text(one)) == one


@given(texts=st.lists(st.text("| \\nt\n", min_size=1)))
def test_bars_and_backslashes_are_told_apart(texts: list[str]) -> None:
    assert read_text(TextParam("a", many=True), write_text(tuple(texts))) == tuple(texts)


def test_a_control_tokens_bars_are_typed_as_they_are() -> None:
    assert write_text(("<|im_end|>", " | ")) == r"<|im_end|> |  \| "
    assert read_text(TextParam("a", many=True), r"<|im_end|> | a\nb") == ("<|im_end|>", "a\nb")


def test_the_sidebar_lists_texts_beside_numbers(ban: RunParams) -> None:
    words, start, weight, *_ = ban.rows()
    assert (words.key, words.shown, words.range, words.live, words.fraction) == (
        "words",
        "none",
        "texts",
        False,
        None,
    )
    assert "separated by ' | '" in words.help
    assert (start.title, start.shown, start.range, weight.shown) == ("first", "none", "text", "1")
    ban.set("words", r" e | o\n")
    ban.set("start", "q")
    assert (shown(ban, "words"), ban.text("words")) == (r" e | o\n", r" e | o\n")
    request = ban.request("x")
    assert request.values == {"words": (" e", "o\n"), "start": "q"}
    assert request.sources["words"] == "user"
    assert ban.step("words", 1) is False
    assert ban.rows()[0].changed
    ban.reset("words")
    assert ban.request("x").values == {"start": "q"}


def test_a_text_that_cannot_be_leaves_the_one_before(ban: RunParams) -> None:
    ban.set("words", "e")
    for typed, sentence in (("b4", "must have no digit"), ("x" * 10_001, "10,001 characters")):
        with pytest.raises(ParamError, match=sentence):
            ban.set("words", typed)
    assert shown(ban, "words") == "e"


def test_a_file_that_is_read_again_keeps_what_was_typed(folder: Path, ban: RunParams) -> None:
    ban.set("words", "e")
    before = ban.decoder
    (folder / "decoders" / "ban.py").write_text(f"{BAN}\n")
    decoders.reload()
    ban.decoder = decoders.find("ban")
    assert ban.decoder is not before
    assert ban.request("x").values == {"words": ("e",)}


def test_a_preset_holds_texts(ban: RunParams, tmp_path: Path) -> None:
    ban.set("words", "e | o")
    ban.set("start", "q")
    own = ban.overrides()
    path = presets.save(presets.Preset("mine", "ban", parameters=own.values), tmp_path)
    read = presets.read_preset(path)
    assert read.parameters == {"words": ("e", "o"), "start": "q"}
    for key in ("words", "start"):
        ban.reset(key)
    patch = ParamPatch({**read.parameters, "weight": "heavy", "gone": "x"})
    assert ban.take(ban.decoder, patch, "mine") == ("weight", "gone")
    assert ban.request("x").values == {"words": ("e", "o"), "start": "q"}
    assert ban.rows()[0].source == "preset mine"
    (tmp_path / "bad.toml").write_text('strategy = "ban"\n[parameters]\nwords = [1]\n')
    with pytest.raises(presets.PresetError, match="words must be a number, a text or a list of texts"):
        presets.read_preset(tmp_path / "bad.toml")


def test_the_settings_screen_writes_texts_into_the_file(folder: Path) -> None:
    settings, _ = load({}, {})
    preferences = Preferences(settings, [], None)  # type: ignore[arg-type]
    assert preferences.entry("parameters.ban.words").shown == ""
    assert preferences.set("parameters.ban.words", r"e | o\n") == []
    entry = preferences.entry("parameters.ban.words")
    assert (entry.shown, entry.source) == (r"e | o\n", "config.toml:2")
    assert preferences.settings.values("ban") == {"words": ("e", "o\n")}
    assert preferences.step("parameters.ban.words", 1) is None
    with pytest.raises(ParamError, match="no digit"):
        preferences.set("parameters.ban.words", "3")


def app() -> EdgeApp:
    pair = {"model": ModelSpec("demo/expert"), "amateur": ModelSpec("demo/amateur")}
    settings = replace(Settings(), strategy="ban", max_length=40, seed=3)
    recorder = Recorder(lambda: Store(default_path()))
    return EdgeApp(
        lambda: LocalEngine(pair), settings, theme_folders=[resources.themes()], recorder=lambda: recorder
    )


async def test_a_text_is_typed_run_saved_and_reopened(folder: Path) -> None:
    decoders.load([folder / "decoders"])
    async with app().run_test(size=(120, 40)) as pilot:
        bench: Any = pilot.app.workbench  # type: ignore[attr-defined]
        await until(pilot, lambda: bench.session.loaded)
        bench.prompt.text = "Once upon a time"
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: bench.session.run is not None and bench.session.run.phase == "done")
        plain = bench.pane.transcript.text
        assert "e" in plain
        table = bench.query_one(ParameterTable)
        table.focus()
        table.choose("words")
        await press(pilot, "enter")
        field = bench.query_one("ValueInput", Input)
        await until(pilot, lambda: bench.focused is field)
        field.value = "b4"
        await press(pilot, "enter")
        await until(pilot, lambda: "no digit" in str(bench.query_one("#parameter-help").content))
        field.value = f"e | {'z' * 90}"
        await press(pilot, "enter")
        await until(pilot, lambda: bench.focused is table)
        lines = str(table.render()).splitlines()
        assert any(line.startswith("▸words") and line.rstrip(" •").endswith("…") for line in lines)
        # Fixed for a run: the next one has it.
        bench.pane.focus()
        await press(pilot, "r")
        await until(pilot, lambda: bench.session.run.id == 2 and bench.session.run.phase == "done")
        await until(pilot, lambda: bench.pane.transcript.started.run == 2)  # the pane may be a frame behind
        assert bench.session.run.started.values["words"].value == ("e", "z" * 90)
        banned = bench.pane.transcript.text
        assert banned
        assert "e" not in banned
        table.focus()
        await press(pilot, "backspace")
        await until(pilot, lambda: bench.run_params.request("x").values.get("words") is None)
        bench.pane.focus()
        await press(pilot, "o")
        await until(pilot, lambda: is_open(pilot.app, HistoryScreen))
        screen: Any = pilot.app.screen
        await until(pilot, lambda: len(screen.list.entries) == 2)
        await press(pilot, "enter")
        await until(pilot, lambda: bench.session.viewed is not None)
        assert bench.pane.transcript.text == banned
        assert bench.run_params.request("x").values["words"] == ("e", "z" * 90)
        pilot.app.session.engine.close(2.0)  # type: ignore[attr-defined]
