"""The models screen and the hub, over HTTP to a stand-in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input, OptionList, Static

from edge_tui.engine.checkpoints.checkpoint import Checkpoint, CheckpointError, open_checkpoint
from edge_tui.engine.checkpoints.locate import cache_root
from edge_tui.hub import recent_models
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.pacing import Pacer
from edge_tui.tui.screens.models import ModelsScreen
from tests.engine.checkpoints.gguf.files import write_gguf
from tests.engine.random_checkpoints import make_checkpoint
from tests.hub_stand_in import Repository, StandIn, serving
from tests.tui.rendered import until, was_said

NAME = "org/tiny"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    with serving() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.url)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        folder = make_checkpoint(tmp_path / "tiny", shards=2, chat_template=True)
        stand_in.repositories[NAME] = Repository(folder)
        yield stand_in


def hint(pilot: Any) -> str:
    return "".join(str(found.render()) for found in pilot.app.screen.query(".hint").results(Static))


def names(pilot: Any) -> list[str]:
    return [str(option.id) for found in pilot.app.screen.query(OptionList) for option in found.options]


def listed(pilot: Any) -> str:
    options = [option for found in pilot.app.screen.query(OptionList) for option in found.options]
    return "\n".join(str(option.prompt) for option in options)


def loaded(app: EdgeApp) -> str:
    model = app.session.loaded.get("model")
    return model.name if model is not None else ""


async def opened(pilot: Any) -> ModelsScreen:
    await pilot.pause(0.1)
    pilot.app.workbench.pane.focus()
    await pilot.press("m")
    await until(pilot, lambda: names(pilot), "the list")
    return pilot.app.screen  # type: ignore[no-any-return]


async def test_from_a_typed_name_to_a_loaded_model(hub: StandIn, demo: Any) -> None:
    app = demo()
    async with app.run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        await pilot.press(*NAME)
        assert names(pilot) == [NAME]
        await until(pilot, lambda: "enter downloads them" in hint(pilot), "the facts")
        assert "LlamaForCausalLM" not in hint(pilot)
        assert "Qwen2ForCausalLM · flat · 256 positions · chat template" in hint(pilot)
        await until(pilot, lambda: "forecast" in hint(pilot) and "weights" in hint(pilot), "the forecast")
        hub.bytes_per_second = 60_000
        await pilot.press("enter")
        await until(pilot, lambda: " left" in hint(pilot) and "/s" in hint(pilot), "rate and time")
        assert "Downloading org/tiny" in hint(pilot)
        await until(pilot, lambda: any(cache_root().rglob("config.json")), "its first file")
        await pilot.press("ctrl+x")
        await until(pilot, lambda: not app.downloads.active, "given up")
        hub.bytes_per_second = None
        await until(pilot, lambda: names(pilot) == [NAME], "still offered")
        await pilot.press("enter")
        await until(pilot, lambda: was_said("here: m lists it"), "fetched")
        await until(pilot, lambda: "precision" in hint(pilot) and "weights" in hint(pilot), "it is local now")
        await pilot.press("enter")
        await until(pilot, lambda: loaded(app) == NAME, "loaded")
        assert recent_models.names()[0] == NAME
        await pilot.press("escape")
        await pilot.pause(0.1)
        await pilot.press("m")
        await until(pilot, lambda: names(pilot)[:1] == [NAME], "the last used comes first")


async def test_a_late_answer_about_files_of_before_is_not_shown(
    picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, answers = threading.Event(), 0

    def reads(name: str) -> Checkpoint:
        nonlocal answers
        answers += 1
        if answers == 1:
            held.wait(10)
            raise CheckpointError("Two files are missing.")
        return open_checkpoint(name)

    monkeypatch.setattr("edge_tui.engine.checkpoints.checkpoint.open_checkpoint", reads)
    app = picture()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        await until(pilot, lambda: answers == 1, "the first look")
        screen.reload()
        await until(pilot, lambda: screen.estimate is not None, "the second look")
        held.set()
        await until(pilot, lambda: all(worker.is_finished for worker in app.workers), "the first answer")
        await pilot.pause(0.1)
        assert screen.estimate is not None
        assert "missing" not in hint(pilot)


async def test_a_download_goes_on_behind_other_screens(hub: StandIn, picture: Any) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        screen.query_one(Input).value = f"https://huggingface.co/{NAME}/tree/main"
        await until(pilot, lambda: "enter downloads them" in hint(pilot), "the facts")
        await pilot.press("enter", "escape")
        assert app.screen is app.workbench
        await until(pilot, lambda: was_said("here: m lists it"), "fetched")


async def test_what_is_being_left_is_painted_no_more(
    hub: StandIn, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        hub.bytes_per_second = 60_000
        app.downloads.start(NAME)
        monkeypatch.setattr(Pacer, "ready", lambda pacer: True)
        app.pop_screen()
        bare = 0
        while screen.is_attached:
            bare += not screen.query(OptionList)
            app.tick()
            await asyncio.sleep(0)
        assert bare, "its parts go before it does"
        assert app.downloads.cancel(NAME)


async def test_what_the_hub_refuses_is_said_in_place(
    hub: StandIn, picture: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repositories["org/closed"] = Repository(hub.repositories[NAME].folder, gated=True)
    app = picture()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        screen.query_one(Input).value = "org/closed"
        await until(pilot, lambda: "is gated" in hint(pilot), "gated")
        screen.query_one(Input).value = "org/nothing"
        await until(pilot, lambda: "check the spelling" in hint(pilot), "unknown")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        screen.query_one(Input).value = "org/nothing2"
        await until(pilot, lambda: "HF_HUB_OFFLINE" in hint(pilot), "offline")
        assert not app.downloads.active


async def test_a_typed_path_is_walked_to_a_model(demo: Any, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    (shelf / "notes").mkdir(parents=True)
    (shelf / "deep" / "er").mkdir(parents=True)
    twin = make_checkpoint(shelf / "deep" / "er" / "folder", "llama")
    file = write_gguf(twin, shelf / "deep" / "er" / "tiny-F32.gguf")
    app = demo()
    async with app.run_test(size=(120, 40)) as pilot:
        screen = await opened(pilot)
        screen.field.value = f"{shelf}/"
        await until(pilot, lambda: names(pilot) == [f"{shelf}/deep/", f"{shelf}/notes/"], "the folders")
        await until(pilot, lambda: "Enter goes into it" in hint(pilot), "what enter does")
        await pilot.press("n", "tab")
        assert screen.field.value == f"{shelf}/notes/"
        await until(pilot, lambda: "no model and no folder" in hint(pilot), "that it is empty")
        screen.field.value = f"{shelf}/de"
        await until(pilot, lambda: names(pilot) == [f"{shelf}/deep/"], "the folder")
        await pilot.press("enter")
        await until(pilot, lambda: names(pilot) == [f"{shelf}/deep/er/"], "what is in it")
        await pilot.press("enter")
        await until(pilot, lambda: names(pilot) == [str(twin), str(file)], "the models")
        await until(pilot, lambda: "forecast" in hint(pilot) and "weights" in hint(pilot), "the forecast")
        await pilot.press("down")
        await until(pilot, lambda: screen.highlighted == str(file), "the file")
        await pilot.press("enter")
        await until(pilot, lambda: loaded(app) == str(file), "loaded")
    assert recent_models.names()[0] == str(file)


async def test_the_cursor_stays_on_what_was_loaded_and_it_is_listed_from_then_on(
    demo: Any, tmp_path: Path
) -> None:
    tiny = [make_checkpoint(tmp_path / "shelf" / name, "llama") for name in ("tiny-a", "tiny-b")]
    app = demo()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        screen.field.value = f"{tmp_path / 'shelf'}/tiny"
        await until(pilot, lambda: names(pilot) == [str(each) for each in tiny], "the models")
        await pilot.press("down")
        await until(pilot, lambda: screen.highlighted == str(tiny[1]), "the second")
        await pilot.press("enter")
        await until(pilot, lambda: "● tiny-b" in listed(pilot), "loaded")
        assert screen.highlighted == str(tiny[1])
        screen.field.value = ""
        await until(pilot, lambda: str(tiny[0]) not in names(pilot), "those here")
        await until(pilot, lambda: str(tiny[1]) in names(pilot), "the one in use among them")


async def test_a_model_that_is_refused_says_it_once(demo: Any, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    file = write_gguf(make_checkpoint(tmp_path / "twin", "llama"), shelf / "cut.gguf")
    file.write_bytes(file.read_bytes()[:-1000])
    app = demo()
    rung = []
    app.bell = lambda: rung.append(True)
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await opened(pilot)
        screen.field.value = f"{shelf}/"
        await until(pilot, lambda: "cut.gguf is truncated" in hint(pilot), "the refusal")
        await pilot.press("enter")
        await until(pilot, lambda: rung, "that it is refused")
        assert hint(pilot).count("is truncated") == 1
