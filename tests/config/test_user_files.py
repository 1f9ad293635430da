"""Whatever lies under the name of a user's file: nothing hangs, nothing ends, and it is said once."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from edge_tui import decoders
from edge_tui.config import presets, reader
from edge_tui.config.settings import Settings, load, user_config
from edge_tui.config.writer import ConfigError, change
from edge_tui.engine.checkpoints.checkpoint import CheckpointError, open_checkpoint
from edge_tui.hub import recent_models
from edge_tui.hub.listing import local_models
from edge_tui.tui import theme
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.editor import EditorError, read_text
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.screens.files import FilesScreen
from edge_tui.tui.screens.themes import ThemesScreen
from edge_tui.util import user_file
from edge_tui.util.file_watcher import FileWatcher
from edge_tui.util.logs import state_folder
from tests.engine.random_checkpoints import make_checkpoint
from tests.tui.engines import PictureEngine
from tests.tui.rendered import is_open, notices, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs pipes with names")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def loop(path: Path) -> None:
    path.symlink_to(path)


def unix_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 108 bytes
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(10**12)


def deep(path: Path) -> None:
    path.write_text("x = " + "[" * 100_000)


def holding_nul(path: Path) -> None:
    path.write_bytes(b"a = 1\0")


def binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00\x01" * 100)


def folder(path: Path) -> None:
    path.mkdir()


KINDS = [pipe, endless, loop, unix_socket, huge, deep, holding_nul, binary, folder]
EACH_KIND = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Ends a test that waits for a writer who never comes."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(40)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    decoders.load()


@contextmanager
def nobody(path: Path) -> Iterator[None]:
    """Takes away the right to look into a folder, from root too."""
    if os.geteuid() == 0:
        path.chmod(0o700)
        os.seteuid(65534)
    else:
        path.chmod(0)
    try:
        yield
    finally:
        if os.geteuid() != os.getuid():
            os.seteuid(os.getuid())
        path.chmod(0o700)


def lay(kind: Callable[[Path], None]) -> None:
    """Puts one of a kind in the place of every file that is the user's own."""
    home = user_config().parent
    for place in (home / "themes", home / "presets", home / "decoders", state_folder()):
        place.mkdir(parents=True)
    names = ("config.toml", "themes/mine.toml", "presets/mine.toml", "decoders/mine.py")
    for path in (*(home / name for name in names), state_folder() / "recent-models.json"):
        kind(path)


async def begin(pilot: Pilot[Any], prompt: str) -> None:
    """Types a prompt, starts its run and waits for that."""
    app = pilot.app
    assert isinstance(app, EdgeApp)
    await until(pilot, lambda: app.screen is app.workbench)
    app.workbench.prompt.text = prompt
    await pilot.press("ctrl+j")
    await until(pilot, lambda: app.session.run is not None)


async def see(pilot: Pilot[Any], key: str, *more: str) -> None:
    """Opens a screen, presses more keys there, draws it and leaves it."""
    app = pilot.app
    assert isinstance(app, EdgeApp)
    app.workbench.pane.focus()
    await until(pilot, lambda: app.workbench.pane.has_focus)
    await pilot.press(key)
    await until(pilot, lambda: is_open(app, Dialog))
    await pilot.press(*more)
    app.export_screenshot()
    await pilot.press("escape")
    await until(pilot, lambda: app.screen is app.workbench)


@EACH_KIND
def test_each_reader_says_what_is_wrong(kind: Callable[[Path], None]) -> None:
    lay(kind)
    home = user_config().parent
    _, notices = load()
    assert [str(user_config()) in str(notice) for notice in notices] == [True]
    found = theme.load([home / "themes"])
    assert list(found.themes) == [theme.DEFAULT]
    assert [notice.startswith("Theme mine.toml: ") for notice in found.notices] == [True]
    _, problems = presets.load()
    assert [problem.startswith("Preset mine.toml") for problem in problems] == [True]
    assert [problem.source for problem in decoders.current().problems] == [str(home / "decoders" / "mine.py")]
    assert "greedy" in [decoder.name for decoder in decoders.strategies()]
    assert recent_models.names() == []
    with pytest.raises(ConfigError, match=r"config\.toml|/dev/zero"):
        change(user_config(), {"seed": 7})
    assert reader.comments(user_config()) == {}
    FileWatcher([home / "themes"], "*.toml", lambda _: None)
    if kind not in (deep, holding_nul):
        with pytest.raises(EditorError, match=r"config\.toml"):
            read_text(user_config())


@pytest.mark.parametrize(
    "kind", [pipe, pytest.param(binary, marks=pytest.mark.proof)], ids=lambda kind: kind.__name__
)
async def test_the_app_runs_and_says_so_once(kind: Callable[[Path], None]) -> None:
    lay(kind)
    settings, told = load()
    app = EdgeApp(PictureEngine, replace(settings, ui=replace(settings.ui, theme="mine")), notices=told)
    async with app.run_test(size=(120, 40)) as pilot:
        await begin(pilot, "Why is the sky blue?")
        assert "\n".join(map(str, notices(app))).count("config.toml") == 1
        await see(pilot, "d")
        await see(pilot, "t", "down", "down")
        assert app.is_running


def test_folders_that_nobody_may_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shut = tmp_path / "shut"
    shut.mkdir()
    with nobody(tmp_path if os.geteuid() == 0 else shut):
        listed = [each for each in local_models([shut]) if each.origin == "folder"]
        assert ["cannot be" in each.refusal and str(shut) in each.refusal for each in listed] == [True]
        monkeypatch.setenv("HF_HUB_CACHE", str(shut))
        (cache,) = [each for each in local_models() if each.origin == "cache"]
        assert "cannot be" in cache.refusal
        assert "cannot be read" in theme.load([shut]).notices[0]
        assert any("cannot be read" in problem for problem in presets.load(shut)[1])
        decoders.load([shut])
        assert any(problem.source == str(shut) for problem in decoders.current().problems)
        FileWatcher([shut], "*.toml", lambda _: None)
        with pytest.raises(ConfigError, match="cannot be read"):
            change(shut / "config.toml", {"seed": 7})
        assert reader.read(shut / "config.toml")[1]
        assert not user_file.exists(shut / "config.toml")


@pytest.mark.parametrize(
    "name",
    ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "chat_template.jinja"],
)
def test_a_pipe_in_a_checkpoint_hangs_nobody(name: str, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "tiny", arch="qwen2")
    (made / name).unlink(missing_ok=True)
    pipe(made / name)
    with pytest.raises(CheckpointError, match=name):
        open_checkpoint(str(made))
    (listed,) = [each for each in local_models([tmp_path]) if each.origin == "folder"]
    assert name in listed.refusal


def test_a_home_that_does_not_exist_is_a_path_like_any_other() -> None:
    assert user_file.expand("~nosuchuser/x") == Path("~nosuchuser/x")
    assert all(each.origin != "folder" for each in local_models(["~nosuchuser/models"]))
    settings, notices = load({"decoder_folders": ["~nosuchuser/x"]})
    assert isinstance(settings, Settings)
    assert not notices


def test_a_link_to_nothing_hides_no_other_file_from_the_watch(tmp_path: Path) -> None:
    (tmp_path / "a.toml").symlink_to(tmp_path / "gone")
    (tmp_path / "b.toml").write_text("x = 1")
    told: list[set[Path]] = []
    watch = FileWatcher([tmp_path], "*.toml", told.append, seconds=0.01)
    watch.start()
    (tmp_path / "b.toml").write_text("x = 12")
    for _ in range(400):
        if told:
            break
        signal.sigtimedwait([], 0.01)
    watch.stop()
    assert told == [{tmp_path / "b.toml"}]


GOOD = 'title = "Mine"\n[colours]\nprimary = "#ff0000"\n[tokens]\nladder = [{}]\n'.format(
    ", ".join(['"#808080"'] * theme.LADDER)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[variables]\nborder = "no colour"', "variables.border"),
        ('[variables]\nborder = ""', "variables.border"),
        ('[variables]\nborder = "auto"', "variables.border"),
        ('[variables]\nborder = "$border"', "variables.border"),
        ('[variables]\nborder = "$primary"', "variables.border"),
        ('[variables]\nborder = "red; } * { display: none"', "variables.border"),
        ('[variables]\nborder = "transparent"', "variables.border"),
        ("[variables]\nborder = 3", "variables.border"),
        ("[variables]\nborder = [1]", "variables.border"),
        ("[variables.border]\nx = 1", "variables.border"),
        ('[variables]\ntoken-0 = "perhaps"', "variables.token-0"),
        ('[variables]\nblock-cursor-text-style = "wavy"', "block-cursor-text-style"),
        ("[variables]\nblock-cursor-text-style = 1", "block-cursor-text-style"),
        ('[variables]\ntext-muted = "auto lots"', "text-muted"),
        ('[variables]\nbordr = "#ff0000"', "bordr"),
        ('variables = "red"', "variables"),
        ("variables = [1]", "variables"),
        ('dark = "no"', "dark"),
        ("ansi = 1", "ansi"),
        ("tokens = 1", "tokens"),
        ('[tokens]\nladder = "red"', "ladder"),
        ('[colours]\nprimary = "auto"', "colours.primary"),
        ('[colours]\nprimary = "#ff0000"\nborder = "#ff0000"', "border"),
    ],
)
def test_a_theme_says_which_value_cannot_be_used(text: str, says: str, tmp_path: Path) -> None:
    key = text.split("=", maxsplit=1)[0].strip(" \n").removeprefix("[").split("]")[0].split(".")[0].strip()
    good = GOOD
    if key == "tokens":
        good = good.partition("[tokens]")[0]
    if key == "colours":
        good = "[tokens]" + good.partition("[tokens]")[2]
    top = text.startswith(("variables =", "dark", "ansi", "tokens ="))
    file = tmp_path / "mine.toml"
    file.write_text(f"{text}\n{good}" if top else f"{good}{text}\n")
    with pytest.raises(theme.ThemeError, match=r"mine\.toml") as caught:
        theme.read(file)
    assert says in str(caught.value)


def usable() -> dict[str, str]:
    """Every variable with another value than its own that the check lets pass."""
    known = {**theme.FALLBACK.to_color_system().generate(), **theme.FALLBACK.variables}
    forms = ("#12345680", "ansi_red", "#fff", "rgb(1,2,3)", "hsl(9,9%,9%)", "auto 40%")
    found = {}
    for number, (key, value) in enumerate(known.items()):
        if key.endswith(("-style", "-style-hover")):
            found[key] = "not bold"
        else:
            found[key] = forms[number % (6 if value.startswith("auto") else 5)]
    return found


@pytest.mark.parametrize(
    "screens",
    [("s",), pytest.param(("m", "question_mark", "comma", "d"), marks=pytest.mark.proof)],
    ids=["strategies", "others"],
)
async def test_what_the_check_lets_pass_is_painted(tmp_path: Path, screens: tuple[str, ...]) -> None:
    lines = "".join(f'{key} = "{value}"\n' for key, value in usable().items())
    (tmp_path / "mine.toml").write_text(f"{GOOD}[variables]\n{lines}")
    found = theme.load([tmp_path])
    assert found.notices == ()
    app = EdgeApp(PictureEngine, Settings(), theme_folders=[tmp_path])
    async with app.run_test(size=(120, 40)) as pilot:
        await begin(pilot, "x")
        app.workbench.pane.focus()
        await pilot.press("t")
        await until(pilot, lambda: is_open(app, ThemesScreen))
        await pilot.press("down", "down")
        await until(pilot, lambda: app.theme == "mine")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.workbench)
        for key in screens:
            await see(pilot, key)
        # Saved while it is in use: what cannot be used leaves the theme that was.
        (tmp_path / "mine.toml").write_text(f'{GOOD}[variables]\nborder = "no colour"\n')
        await until(pilot, lambda: "variables.border" in app.workbench.view.messages.message)
        assert app.theme == "mine"
        assert app.is_running


async def test_the_list_of_files_bears_a_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "gone", tmp_path / "shown"]
    for each in folders:
        each.mkdir()
    monkeypatch.chdir(folders[0])
    app = EdgeApp(PictureEngine, Settings())
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: app.screen is app.workbench)
        folders[0].rmdir()
        await pilot.press("ctrl+o")
        await until(pilot, lambda: is_open(app, FilesScreen))
        await pilot.press(*"~nosuchuser/")
        field = app.screen.query_one(Input)
        await until(pilot, lambda: field.value == "~nosuchuser/")
        (folders[1] / "file.txt").write_text("x")
        field.value = f"{folders[1]}/"
        await until(pilot, lambda: app.screen.query_one(OptionList).option_count == 1)
        (folders[1] / "file.txt").unlink()
        folders[1].rmdir()
        await pilot.press("enter")
        await until(pilot, lambda: "cannot be read" in app.workbench.view.messages.message)
        assert app.is_running
