"""Prompts: recalled, written elsewhere, loaded; presets; and runs that come back from the history."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, OptionList

from edge_tui.config import presets
from edge_tui.engine.events import ParamChanged, Resolved
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec, Request
from edge_tui.history import process_identity
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui import editor
from edge_tui.tui.screens.confirm import ConfirmScreen
from edge_tui.tui.screens.files import FilesScreen
from edge_tui.tui.screens.prompts import PromptsScreen
from tests.history.runs import LOADED, batch, started
from tests.tui.engines import WORDS, PictureEngine
from tests.tui.kept import PROMPTS, fill, keeping
from tests.tui.rendered import is_open, was_said
from tests.tui.test_workbench import bench, ended, press, ready, until

SIZE = (100, 30)


async def at_prompt(pilot: Any) -> Any:
    workbench = bench(pilot)
    await until(pilot, lambda: ready(workbench))
    workbench.prompt.focus()
    await until(pilot, lambda: workbench.focused is workbench.prompt)
    return workbench


async def at_tokens(pilot: Any) -> Any:
    workbench = await at_prompt(pilot)
    workbench.pane.focus()
    await until(pilot, lambda: workbench.focused is workbench.pane)
    return workbench


# Earlier prompts.


async def test_up_and_down_at_the_edges_go_through_earlier_prompts() -> None:
    fill()
    async with keeping().run_test(size=SIZE) as pilot:
        workbench = await at_prompt(pilot)
        prompt = workbench.prompt
        prompt.insert("a draft\nof two lines")
        await press(pilot, "up", "up")  # within the draft, then beyond it
        await until(pilot, lambda: prompt.text == PROMPTS[-1])
        await press(pilot, "up")
        await until(pilot, lambda: prompt.text == PROMPTS[-2])
        assert prompt.cursor_location == (0, 0)
        await press(pilot, "down", "down")
        await until(pilot, lambda: prompt.text == PROMPTS[-1])
        await press(pilot, "down")
        await until(pilot, lambda: prompt.text == "a draft\nof two lines")
        await press(pilot, "down")
        assert prompt.text == "a draft\nof two lines"


async def test_prompts_are_searched() -> None:
    fill()
    async with keeping().run_test(size=SIZE) as pilot:
        workbench = await at_prompt(pilot)
        await press(pilot, "ctrl+r")
        await until(pilot, lambda: is_open(pilot.app, PromptsScreen))
        listing = pilot.app.screen.query_one(OptionList)
        await until(pilot, lambda: listing.option_count == len(PROMPTS))
        await press(pilot, *"onacci")
        await until(pilot, lambda: listing.option_count == 1)
        await press(pilot, "enter")
        await until(pilot, lambda: workbench.prompt.text == "def fibonacci(n):")


# The editor and files.


def script(tmp_path: Path, body: str) -> str:
    path = tmp_path / "an editor.py"
    path.write_text(f"import os, signal, sys, time\npath = sys.argv[-1]\n{body}\n")
    return f"{sys.executable} '{path}'"


async def test_the_editor_changes_the_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "text = open(path).read()\nopen(path, 'w').write(text.upper() + ' é\\x1b[31m\\n')"
    monkeypatch.setenv("EDITOR", script(tmp_path, body))
    assert editor.edit("abc") == "ABC é\x1b[31m"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("sys.exit(3)", "ended with status 3"),
        ("open(path, 'wb').write(b'\\xff')", "not UTF-8"),
        ("os.unlink(path)", "cannot be read"),
    ],
)
async def test_an_editor_that_fails_leaves_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, says: str
) -> None:
    monkeypatch.setenv("VISUAL", script(tmp_path, body))
    with pytest.raises(editor.EditorError, match=says):
        editor.edit("abc")


@pytest.mark.parametrize(
    ("command", "says"), [("", "No editor is set"), ("'", "No editor"), ("/no/ed", "started")]
)
async def test_an_editor_that_is_none(monkeypatch: pytest.MonkeyPatch, command: str, says: str) -> None:
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", command)
    with pytest.raises(editor.EditorError, match=says):
        editor.edit("abc")


async def test_ctrl_c_in_the_editor_is_the_editors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    left: list[int] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, left.append, 1)
    try:
        monkeypatch.setenv(
            "EDITOR", script(tmp_path, "os.kill(os.getppid(), signal.SIGINT); time.sleep(0.1)")
        )
        assert editor.edit("abc") == "abc"
        await asyncio.sleep(0.05)
        assert left == []
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
        assert left == [1]
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def test_a_file_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "note.txt").write_text("one\r\ntwo\x1b[2J\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    async with keeping().run_test(size=SIZE) as pilot:
        workbench = await at_prompt(pilot)
        await press(pilot, "ctrl+o")
        await until(pilot, lambda: is_open(pilot.app, FilesScreen))
        field = pilot.app.screen.query_one(Input)
        await press(pilot, *"fold", "enter")
        await until(pilot, lambda: field.value == "folder/")
        await press(pilot, "enter")
        await until(pilot, lambda: workbench.prompt.text == "one\ntwo␛[2J\n")
        await press(pilot, "ctrl+o")
        await until(pilot, lambda: is_open(pilot.app, FilesScreen))
        await press(pilot, *"bin", "enter")
        await until(pilot, lambda: was_said("not UTF-8"))
        assert workbench.prompt.text == "one\ntwo␛[2J\n"


# Presets.


def test_the_presets_that_come_along_fit_their_strategies() -> None:
    from edge_tui import decoders

    found, problems = presets.load()
    assert not problems
    assert {each.name for each in found} == {"creative", "precise", "code", "checkpoint"}
    for each in found:
        own = {param.name: param for param in decoders.find(each.strategy).params}
        for name, value in each.parameters.items():
            own[name].parse(value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("strategy = 3", "p.toml:1: strategy must be a text"),
        ('title = "x"', "needs a strategy"),
        ('strategy = "greedy"\nfrob = 1', "p.toml:2: frob is unknown"),
        ('strategy = "greedy"\nmode = "wild"', "custom | exploratory"),
        ('strategy = "greedy"\nmax_length = 0', "from 1"),
        ('strategy = "greedy"\nmax_length = true', "whole number"),
        ('strategy = "greedy"\nstop = 3', "list of texts"),
        ('strategy = "greedy"\n[parameters]\ntemperature = [1]', "a text or a list of texts"),
        ("= 1", "not valid TOML"),
    ],
)
def test_a_preset_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "p.toml").write_text(text)
    found, problems = presets.load(tmp_path)
    assert len(found) == 4
    (problem,) = problems
    assert says in problem


@pytest.mark.parametrize("title", ["../../etc/x", "..", "/", "a\0b", "é", "Ünï code", "x" * 99])
def test_names_stay_within_their_folder(tmp_path: Path, title: str) -> None:
    name = presets.name_of(title)
    if name:
        path = presets.save(presets.Preset(name, "greedy", title=title), tmp_path / "presets")
        assert path.parent == tmp_path / "presets"
        assert presets.read_preset(path).title == title
    else:
        assert title in ("..", "/", "é")


def test_a_preset_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(presets.PresetError, match="cannot be written"):
        presets.save(presets.Preset("a", "greedy"), tmp_path / "file")


# Runs that were cut off.


async def test_an_interrupted_run_is_offered_and_goes_on_from_its_last_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(default_path())
    with monkeypatch.context() as patch:
        patch.setattr(process_identity, "own", lambda: f"{process_identity.host()}/999999999/1.00")
        run = store.insert_run("ab12", time.time(), Request("Why?", strategy="min_p", values={"min_p": 0.2}))
    store.set_started(run, started(run, strategy="min_p", seed=77), {"model": LOADED}, {})
    store.append_chunk(run, 0, batch(WORDS[:8]))
    engine = PictureEngine()
    async with keeping(engine).run_test(size=SIZE) as pilot:
        workbench = bench(pilot)
        await until(pilot, lambda: is_open(pilot.app, ConfirmScreen))
        await press(pilot, "enter")
        await until(pilot, lambda: workbench.session.viewed is not None)
        await until(pilot, lambda: len(workbench.pane.transcript or ()) == 8)
        assert workbench.run_params.decoder.name == "min_p"
        assert workbench.prompt.text == "Why?"
        await until(pilot, lambda: workbench.focused is workbench.pane)
        # The other model has other tokens.
        await press(pilot, "c")
        await until(pilot, lambda: was_said("wrote this: load it"))
        workbench.session.loaded["model"] = LOADED
        await press(pilot, "c")
        await until(pilot, lambda: engine.requests)
        assert engine.requests[0].prefix == tuple(batch(WORDS[:8]).id.tolist())
        assert engine.requests[0].seed == 77
        assert engine.requests[0].prompt == "Why?"
        await until(pilot, lambda: len(workbench.pane.transcript) == len(WORDS))
        assert workbench.pane.transcript.token(3).raw_logp == pytest.approx(
            float(batch(WORDS[:8]).raw_logp[3])
        )
    async with keeping().run_test(size=SIZE) as pilot:
        await at_prompt(pilot)
        assert pilot.app.screen is bench(pilot)


async def test_quitting_in_the_middle_of_a_run_loses_nothing(demo: Any) -> None:
    from edge_tui.history.recorder import Recorder

    app = demo(max_length=1500, strategy="top_p", seed=2)
    app.session.recorder = Recorder(lambda: Store(default_path()))
    async with app.run_test(size=SIZE) as pilot:
        workbench = bench(pilot)
        await until(pilot, lambda: ready(workbench))
        workbench.prompt.insert("def f(x):")
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: workbench.pane.transcript and len(workbench.pane.transcript) > 20)
        await press(pilot, "ctrl+q")
        await until(pilot, lambda: not app.is_running)
    transcript = workbench.session.run.transcript
    (entry,) = Store(default_path()).runs()
    assert entry.state == "running"
    assert entry.tokens >= len(transcript)


async def test_a_kept_run_can_be_run_again_to_the_same_tokens(demo: Any) -> None:
    from edge_tui.history.recorder import Recorder

    app = demo(max_length=16, strategy="top_p")
    app.session.recorder = Recorder(lambda: Store(default_path()))
    async with app.run_test(size=SIZE) as pilot:
        workbench = bench(pilot)
        await until(pilot, lambda: ready(workbench))
        workbench.prompt.insert("def f(x):")
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: workbench.session.run and ended(workbench))
        first = workbench.session.run
        store = app.history()
        await until(pilot, lambda: [e.state for e in store.runs()] == ["finished"])
        workbench.reopen(store.runs()[0].id, again=True)
        await until(pilot, lambda: workbench.session.run is not first and ended(workbench))
        assert workbench.session.run.transcript.ids() == first.transcript.ids()


def cut_off(changes: list[ParamChanged], **request: Any) -> int:
    """A kept run that was broken off, with parameters turned on the way."""
    store = Store(default_path())
    run = store.insert_run("ab12", time.time(), Request("Why?", strategy="min_p", **request))
    values = {"min_p": Resolved(0.2, "user"), "temperature": Resolved(1.5, "mode")}
    store.set_started(run, started(run, strategy="min_p", values=values), {"model": LOADED}, {})
    store.append_chunk(run, 0, batch(WORDS[:8]))
    store.append_changes(run, changes)
    store.mark_interrupted(store.entry(run), "")
    store.take_offer()
    return run


async def test_a_reopened_run_goes_on_with_what_was_turned_and_runs_again_without() -> None:
    run = cut_off(
        [ParamChanged(1, "temperature", 0.7, 1, 2), ParamChanged(1, "temperature", 0.4, 2, 5)],
        mode="exploratory",
    )
    engine = PictureEngine()
    async with keeping(engine).run_test(size=SIZE) as pilot:
        workbench = await at_tokens(pilot)
        workbench.session.loaded["model"] = LOADED
        workbench.reopen(run)
        await until(pilot, lambda: workbench.session.viewed is not None)
        await until(pilot, lambda: workbench.focused is workbench.pane)
        await press(pilot, "c")
        await until(pilot, lambda: engine.requests)
        assert engine.requests[0].values["temperature"] == pytest.approx(0.4)
        assert engine.requests[0].values["min_p"] == pytest.approx(0.2)
        assert engine.requests[0].mode == "custom"
        workbench.reopen(run, again=True)
        await until(pilot, lambda: len(engine.requests) == 2)
        assert engine.requests[1].mode == "exploratory"
        assert workbench.run_params.mode == "exploratory"


async def test_alternatives_of_a_run_that_was_cut_off_are_asked_of_its_model() -> None:
    run = cut_off([])
    Store(default_path()).add_token_strings(LOADED.name, {1: "known"})
    async with keeping().run_test(size=SIZE) as pilot:
        workbench = await at_tokens(pilot)
        workbench.reopen(run)
        await until(pilot, lambda: workbench.session.viewed is not None)
        assert workbench.session.texts_of([1, 2]) == ["known", "id 2"]
        workbench.session.loaded["model"] = LOADED
        assert workbench.session.texts_of([1, 2]) == workbench.session.engine.decode([1, 2])


def test_the_engine_of_a_kept_app_is_the_real_one_underneath() -> None:
    from edge_tui.history.recorder import Recorder

    inner = LocalEngine({"model": ModelSpec("demo/expert")})
    recorder = Recorder(lambda: Store(None))
    engine = recorder.record(inner)
    assert engine.alive()
    assert engine.decode([1]) == [""]
    assert engine.close(5.0)
    assert not engine.alive()
    assert recorder.close(5.0)
