"""The history's screen: finding, opening, comparing, exporting, deleting."""

from __future__ import annotations

import json
import shlex
import sqlite3
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from textual.widgets import Input

from edge_tui.engine.port import Request
from edge_tui.history.schema import default_path
from edge_tui.history.store import Store
from edge_tui.tui.clipboard import Clipboard
from edge_tui.tui.screens import history
from edge_tui.tui.screens.compare import CompareScreen
from edge_tui.tui.screens.export import ExportScreen
from edge_tui.tui.screens.history import HistoryScreen
from edge_tui.tui.screens.history import _write as export
from tests.history.runs import batch, finished, keep
from tests.tui.engines import WORDS, PictureEngine
from tests.tui.kept import PROMPTS, fill, keeping
from tests.tui.rendered import is_open, was_said
from tests.tui.test_crafting import at_tokens
from tests.tui.test_workbench import press, until

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZE = (120, 40)


async def opened(pilot: Any, runs: int = len(PROMPTS)) -> Any:
    await at_tokens(pilot)
    await press(pilot, "o")
    await until(pilot, lambda: is_open(pilot.app, HistoryScreen))
    screen = pilot.app.screen
    await until(pilot, lambda: len(screen.list.entries) == runs)
    return screen


async def test_it_searches_as_one_types_and_previews() -> None:
    fill()
    async with keeping().run_test(size=SIZE) as pilot:
        screen = await opened(pilot)
        assert screen.list.entry.prompt == PROMPTS[-1]
        await until(pilot, lambda: screen.pane.transcript is not None)
        assert screen.pane.transcript.text == "".join(WORDS)
        await press(pilot, *"fibo")
        await until(pilot, lambda: [e.prompt for e in screen.list.entries] == [PROMPTS[1]])
        await until(pilot, lambda: "1 of 5 runs" in str(screen.box.border_title))
        await press(pilot, *"zz")
        await until(pilot, lambda: screen.query_one(Input).value == "fibozz")  # none holds the first z either
        await until(pilot, lambda: "No run holds that" in str(screen.about.content))
        await until(pilot, lambda: screen.pane.transcript is None)
        screen.query_one(Input).value = ""
        await until(pilot, lambda: len(screen.list.entries) == len(PROMPTS))


async def test_thousands_of_runs_are_read_once_and_the_lines_in_sight_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count, asked = 2000, []
    store = Store(default_path())
    with store.transaction():
        for number in range(count):
            run = store.insert_run(f"{number:016x}", float(number), Request(f"prompt {number}"))
            store.finish_run(run, "finished", "an answer")
    store.close()
    rows = Store.rows

    def note(store: Store, query: str, values: Sequence[Any] = ()) -> list[Any]:
        asked.append(query)
        return rows(store, query, values)

    async with keeping().run_test(size=SIZE) as pilot:
        await at_tokens(pilot)
        monkeypatch.setattr(Store, "rows", note)
        screen = await opened(pilot, count)
        await until(pilot, lambda: "prompt 1999" in str(screen.about.content))
        assert sum("FROM runs" in query and "WHERE" not in query for query in asked) == 1
        assert len(asked) < 12, "those of one preview besides"
        assert len(screen.list.compose_lines(100, 30)) == 30
        asked.clear()
        await press(pilot, *"1234")
        await until(pilot, lambda: [entry.prompt for entry in screen.list.entries] == ["prompt 1234"])
        assert sum("FROM search" in query for query in asked) <= len("1234")
        assert not any("FROM runs" in query and "WHERE" not in query for query in asked)


async def test_a_run_is_opened_with_its_colours_settings_and_alternatives() -> None:
    (run, *_) = fill()
    store = Store(default_path())
    store.add_token_strings("some/model", {0: "Ein "})
    async with keeping().run_test(size=SIZE) as pilot:
        screen = await opened(pilot)
        await press(pilot, "ctrl+end")
        await until(pilot, lambda: screen.list.entry.id == run)
        await press(pilot, "enter")
        workbench = pilot.app.workbench
        await until(pilot, lambda: workbench.session.viewed is not None)
        assert workbench.pane.transcript.text == "".join(WORDS)
        assert workbench.prompt.text == PROMPTS[0]
        assert workbench.session.texts_of([0, 7]) == ["Ein ", "id 7"]
        await until(pilot, lambda: workbench.view.gauge.speed.written == len(WORDS))
        # The next run takes its place.
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: workbench.session.viewed is None and workbench.pane.transcript is not None)


async def test_running_again_takes_prompt_settings_and_seed() -> None:
    fill()
    engine = PictureEngine()
    async with keeping(engine).run_test(size=SIZE) as pilot:
        await opened(pilot)
        await press(pilot, "down", "down", "ctrl+g")
        await until(pilot, lambda: engine.requests)
        assert engine.requests[0].prompt == PROMPTS[2]
        assert engine.requests[0].strategy == "beam"
        assert engine.requests[0].seed == 7


async def test_running_again_ends_proposing_where_the_run_did() -> None:
    store = Store(default_path())
    entry = keep(store, "a", strategy="speculative")
    store.finish_run(entry.id, "finished", "", replace(finished(entry.id, 6), proposing_ended=77))
    engine = PictureEngine()
    async with keeping(engine).run_test(size=SIZE) as pilot:
        await opened(pilot, 1)
        await press(pilot, "ctrl+g")
        await until(pilot, lambda: engine.requests)
        assert engine.requests[0].proposing_ends == 77


async def test_two_runs_are_compared_at_their_first_differing_token() -> None:
    store = Store(default_path())
    first = keep(store, "a", ["one ", "two ", "three "], seed=1, created=time.time() - 9)
    second = keep(store, "a", ["one ", "two ", "drei "], seed=2)
    # The same ids but for the last.
    one, two = store.load(first.id).batches[0], store.load(second.id).batches[0]
    two.id[:2], two.id[2] = one.id[:2], one.id[2] + 1
    store.append_chunk(second.id, 0, two, replacing=1)
    async with keeping().run_test(size=SIZE) as pilot:
        await opened(pilot, 2)
        # At once: none overtakes another.
        await press(pilot, "ctrl+d", "down", "ctrl+d", between=0)
        await until(pilot, lambda: is_open(pilot.app, CompareScreen))
        screen = pilot.app.screen
        await until(pilot, lambda: screen.found)
        assert screen.found.common_length == 2
        assert screen.found.diverges
        assert [each.name for each in screen.found.settings] == ["seed"]
        await until(pilot, lambda: [pane.cursor for pane in screen.panes] == [2, 2])
        for key, place in (("left", 1), ("d", 2), ("left", 1)):
            await press(pilot, key)
            await until(pilot, lambda place=place: [pane.cursor for pane in screen.panes] == [place] * 2)
            await until(pilot, lambda place=place: [each.index for each in screen.inspectors] == [place] * 2)
        await press(pilot, "escape")
        await until(pilot, lambda: is_open(pilot.app, HistoryScreen))


async def test_one_of_two_compared_runs_is_opened() -> None:
    store = Store(default_path())
    keep(store, "a", ["one ", "two "], seed=1, created=time.time() - 9)
    second = keep(store, "b", ["one ", "two ", "three "], seed=2)
    async with keeping().run_test(size=SIZE) as pilot:
        await opened(pilot, 2)
        await press(pilot, "ctrl+d", "down", "ctrl+d", between=0)
        await until(pilot, lambda: is_open(pilot.app, CompareScreen) and pilot.app.screen.found)
        # The run that was marked first is the newest, and on the left.
        await press(pilot, "enter")
        workbench = pilot.app.workbench
        await until(pilot, lambda: pilot.app.screen is workbench and workbench.session.viewed is not None)
        assert workbench.session.viewed.uid == second.uid


@pytest.mark.parametrize("undone", [False, True])
async def test_deleting_happens_on_the_way_out_and_can_be_undone(undone: bool) -> None:
    fill()
    async with keeping().run_test(size=SIZE) as pilot:
        screen = await opened(pilot)
        await press(pilot, "ctrl+x")
        await until(pilot, lambda: screen.list.marked_for_delete)
        assert len(pilot.app.history().runs()) == len(PROMPTS)
        if undone:
            await press(pilot, "ctrl+x")
            await until(pilot, lambda: not screen.list.marked_for_delete)
        await press(pilot, "escape")
        left = len(PROMPTS) - (not undone)
        await until(pilot, lambda: len(pilot.app.history().runs()) == left)
    assert len(Store(default_path()).runs()) == left


@pytest.mark.parametrize("kind", ["json", "svg"])
async def test_exports_land_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fill()
    monkeypatch.chdir(tmp_path)
    async with keeping(theme="light").run_test(size=SIZE) as pilot:
        screen = await opened(pilot)
        await press(pilot, "ctrl+s")
        await until(pilot, lambda: is_open(pilot.app, ExportScreen))
        await press(pilot, *{"md": "mark", "json": "imported", "html": "html", "svg": "svg"}[kind], "enter")
        await until(pilot, lambda: "Written to" in str(screen.about.content))
    (file,) = tmp_path.iterdir()
    assert file.suffix == f".{kind}"
    assert file.stat().st_mode & 0o777 == 0o600
    assert "Rayleigh" in file.read_text()
    if kind == "json":
        assert json.loads(file.read_text())["run"]["prompt"] == PROMPTS[-1]


async def test_the_command_of_a_run_is_copied_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    fill()
    app = keeping()
    copied: list[str] = []
    monkeypatch.setattr(app, "copy_to_clipboard", copied.append)
    monkeypatch.setattr(app, "clipboard_support", lambda: Clipboard("yes"))
    async with app.run_test(size=SIZE) as pilot:
        screen = await opened(pilot)
        await press(pilot, "ctrl+y")
        await until(pilot, lambda: "Copied: edge-tui run" in str(screen.about.content))
        (command,) = copied
        assert shlex.split(command)[-1] == PROMPTS[-1]
        assert command in str(screen.about.content)
        monkeypatch.setattr(app, "clipboard_support", lambda: Clipboard("no", "There is none."))
        await press(pilot, "ctrl+y")
        await until(pilot, lambda: "There is none. An export" in str(screen.about.content))
        assert len(copied) == 1


def test_an_export_is_written_over_no_other_and_not_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(default_path())
    run = keep(store).id
    first = export(store, run, "md", "dark")
    assert export(store, run, "md", "dark") == first
    store.append_chunk(run, 1, batch(["more"]))  # it had been under way
    second = export(store, run, "md", "dark")
    assert second != first
    assert "more" in second.read_text()
    assert "more" not in first.read_text()
    assert export(store, run, "md", "dark") == second
    assert len(list(tmp_path.glob("*.md"))) == 2


async def test_nothing_kept_says_what_to_do(picture: Any) -> None:
    async with keeping().run_test(size=SIZE) as pilot:
        screen = await opened(pilot, 0)
        await until(pilot, lambda: "Nothing has been kept yet" in str(screen.about.content))
        await press(pilot, "enter", "ctrl+x", "ctrl+d", "ctrl+s", "escape")
        await until(pilot, lambda: pilot.app.screen is pilot.app.workbench)
    async with picture().run_test(size=SIZE) as pilot:
        await at_tokens(pilot)
        await press(pilot, "o")
        await until(pilot, lambda: was_said("No history is kept"))


async def test_a_run_that_cannot_be_read_is_one_sentence() -> None:
    fill()
    with closing(sqlite3.connect(default_path())) as connection, connection:
        connection.execute("UPDATE chunks SET data = x'01'")
    async with keeping().run_test(size=SIZE) as pilot:
        screen = await opened(pilot)
        await until(pilot, lambda: "cannot be read" in str(screen.about.content))
        await press(pilot, "enter")
        await until(pilot, lambda: was_said("cannot be read"))


async def test_the_list_follows_runs_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_PERIOD", 0.02)
    fill()
    store = Store(default_path())
    empty, run = (store.insert_run(name * 16, time.time(), Request(f"storm {name}")) for name in "ef")
    async with keeping().run_test(size=SIZE) as pilot:
        screen = await opened(pilot, len(PROMPTS) + 2)

        def lines() -> list[str]:
            return ["".join(text for text, _ in line) for line in screen.list.compose_lines(100, 30)]

        assert [line[0] for line in lines()[:3]] == ["…", "…", " "]
        await press(pilot, *"storm")
        await until(pilot, lambda: [entry.id for entry in screen.list.entries] == [run, empty])
        store.append_chunk(run, 0, batch(["one ", "two "]))
        await until(pilot, lambda: screen.pane.transcript and screen.pane.transcript.text == "one two ")
        await until(pilot, lambda: "running" in str(screen.about.content))
        await press(pilot, "ctrl+d")
        store.append_chunk(run, 1, batch(["three "]))
        store.finish_run(run, "finished", "one two three ", finished(run, 3))
        await until(pilot, lambda: screen.pane.transcript.text == "one two three ")
        assert "Marked" in str(screen.about.content), "what was said stays"
        await press(pilot, "ctrl+d", "down")
        await until(pilot, lambda: screen.list.entry.id == empty)
        store.delete(empty)  # as is one that ends without a token
        await until(pilot, lambda: [entry.id for entry in screen.list.entries] == [run])
        assert lines()[0][0] == " "
        await until(pilot, lambda: "tok/s" in str(screen.about.content))
        screen.query_one(Input).value = ""
        await until(pilot, lambda: len(screen.list.entries) == len(PROMPTS) + 1)
        assert not any(line.startswith("…") for line in lines())
    store.close()


async def test_a_run_in_progress_is_found_again() -> None:
    fill()
    engine = PictureEngine()
    engine.held = True
    async with keeping(engine).run_test(size=SIZE) as pilot:
        app: Any = pilot.app
        bench = app.workbench
        await at_tokens(pilot)
        bench.prompt.insert("Why?")
        await press(pilot, "ctrl+j")
        await until(pilot, lambda: bench.session.run is not None and bench.session.run.transcript is not None)
        run = bench.session.run
        await until(pilot, lambda: bench.pane.transcript is run.transcript)
        await press(pilot, "o")
        await until(pilot, lambda: is_open(app, HistoryScreen))
        await until(pilot, lambda: len(app.screen.list.entries) == len(PROMPTS) + 1)
        await press(pilot, "down", "enter")
        await until(pilot, lambda: was_said("o leads back to it"))
        assert bench.pane.transcript is not run.transcript
        await press(pilot, "o")
        await until(pilot, lambda: is_open(app, HistoryScreen))
        await until(pilot, lambda: len(app.screen.list.entries) == len(PROMPTS) + 1)
        await press(pilot, "enter")
        await until(pilot, lambda: bench.pane.transcript is run.transcript)
        assert bench.session.viewed is None
        assert bench.session.busy
