"""The prompt as the model reads it: whose each token is, how surprising, and what would come next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.events import Paste

from edge_tui.config import resources
from edge_tui.config.settings import Settings
from edge_tui.engine.local import LocalEngine
from edge_tui.engine.port import ModelSpec
from edge_tui.history.recorder import Recorder
from edge_tui.history.store import Store
from edge_tui.tui.app import EdgeApp
from edge_tui.tui.screens.files import ScoreFileScreen
from edge_tui.tui.screens.read_prompt import ReadPromptScreen
from tests.engine.random_checkpoints import make_checkpoint
from tests.tui.prompts import ReadingEngine
from tests.tui.rendered import assert_readable, is_open, lines, settle, strips, until

SMALL, LARGE = (80, 24), (160, 45)
PARTS = [
    ("", ""),
    ("user\n", ""),
    ("The", "user"),
    (" capital", "user"),
    ("", ""),
    ("\nassistant\n", ""),
]
CONTROL = {100: "<|im_start|>", 104: "<|im_end|>"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "reader"
    return str(make_checkpoint(folder, context=256, chat_template=True, seed=5))


@pytest.fixture
def reader(model: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., EdgeApp]:
    """An app on a small model with a chat template, which loads on demand."""

    def make(**changes: Any) -> EdgeApp:
        app = EdgeApp(
            lambda: LocalEngine({"model": ModelSpec(model, device="cpu")}),
            replace(Settings(), **{"strategy": "greedy", "max_length": 12} | changes),
            theme_folders=[resources.themes()],
            recorder=lambda: Recorder(lambda: Store(tmp_path / "history.db")),
        )
        request.addfinalizer(lambda: app.session.engine and app.session.engine.close(2.0))
        return app

    return make


def fixed(picture: Callable[..., EdgeApp], **more: Any) -> tuple[EdgeApp, ReadingEngine]:
    engine = ReadingEngine(**({"parts": PARTS, "control": tuple(CONTROL), "names": CONTROL} | more))
    return picture(engine), engine


async def opened(pilot: Any, prompt: str = "the quick fox") -> Any:
    """Opens the screen over a prompt; it need not have read it yet."""
    bench = pilot.app.workbench
    await until(pilot, lambda: bench.session.engine is not None)
    if prompt:
        bench.prompt.insert(prompt)
    bench.action_read_prompt()
    await until(pilot, lambda: is_open(pilot.app, ReadPromptScreen))
    return pilot.app.screen


async def read(pilot: Any, **ways: Any) -> Any:
    """Opens the screen and waits for the prompt."""
    screen = await opened(pilot, **ways)
    await until(pilot, lambda: shown(screen))
    await settle(pilot)
    return screen


def shown(screen: Any) -> int:
    return len(screen.tokens.transcript) if screen.tokens.transcript is not None else 0


def text(app: Any) -> str:
    return "\n".join(lines(app))


def line_with(app: Any, words: str) -> str:
    return next((line for line in lines(app) if words in line), f"no line has {words!r}:\n{text(app)}")


async def test_the_prompt_is_drawn_in_a_small_terminal(picture: Callable[..., EdgeApp]) -> None:
    app, engine = fixed(picture, names=CONTROL | {102: "The", 103: " capital"})
    async with app.run_test(size=SMALL) as pilot:
        screen = await read(pilot)
        assert_drawn(app)
        assert screen.place.region.y > screen.tokens.region.y
        assert engine.requests[0].max_length == 1
        assert app.session.run is None, "nothing has run"
        assert_coloured(screen)
        screen.tokens.cursor = 3
        await settle(pilot)
        assert "“ capital”" in line_with(app, "#3")
        assert "yours" in line_with(app, "#3")
        assert "p 5.0% · log p -3.00 · rank 31 · H 0.38 nats" in line_with(app, "rank")
        assert "H after this point 0.50 nats" in text(app)
        assert "most likely here" in text(app)
        assert "● “ capital”" in text(app), "it is not among the likeliest, and is listed all the same"
        await pilot.press("left", "left")
        assert "the template's" in text(app)
        await pilot.press("home")
        assert "Nothing comes before the first token" in text(app)
        await pilot.press("end")
        assert "next token, before anything runs" in text(app)
        await pilot.press("escape")
        assert app.screen is app.workbench


def assert_drawn(app: EdgeApp) -> None:
    assert "what the model reads · 6 tokens (2 are yours)" in text(app)
    assert "⟨im_start⟩user↵" in text(app)
    assert "The capital⟨im_end⟩↵" in text(app)
    assert "H after this point 4.66 nats · A notice." in text(app)
    assert "yours: 2 tokens · 5.00 nats · perplexity 12.18 · 0.656 bits/byte" in text(app)
    first = line_with(app, "“ word0”")
    assert "60.7%" in first
    assert "█" in first
    assert_readable(app)


def assert_coloured(screen: Any) -> None:
    """The template's tokens are dim, and the user's have the colours of an answer's tokens."""
    colours = {}
    for segment in (segment for strip in strips(screen.app) for segment in strip):
        for word in ("⟨im_start⟩", "The", "capital", "⟨im_end⟩", "assistant"):
            if word in segment.text and segment.style is not None:
                colours.setdefault(word, segment.style.color)
    styles = screen.tokens.token_styles.buckets
    assert colours["The"] == styles[2].color, "13.5 % is the third bucket"
    assert colours["capital"] == styles[1].color
    template = {colours[word] for word in ("⟨im_start⟩", "⟨im_end⟩", "assistant")}
    assert len(template) == 1
    assert template.isdisjoint(style.color for style in styles)


async def test_a_large_terminal_has_the_strategys_numbers_beside_the_prompt(
    picture: Callable[..., EdgeApp],
) -> None:
    app, engine = fixed(picture)
    async with app.run_test(size=LARGE) as pilot:
        screen = await read(pilot)
        assert_drawn(app)
        assert screen.place.region.y == screen.tokens.region.y
        assert "final" in line_with(app, "the model's own")
        assert "cut" in line_with(app, "“ word9”")
        assert "takes “" not in text(app), "another seed takes another token"
        await pilot.press("w")
        assert "There is no answer on the screen yet." in text(app)
        await pilot.press("escape")
        app.workbench.run_params.set("seed", 7)
        await read(pilot, prompt="")
        assert "top-p with seed 7 takes “<|im_start|>”" in text(app)
        assert "● “<|im_start|>”" in text(app)
        engine.parts = [(f"line {number}\n", "user") for number in range(200)]
        await pilot.press("c")
        await until(pilot, lambda: shown(app.screen) == 200)
        await settle(pilot)
        region = app.screen.tokens.region
        ends = lines(app)[region.y], lines(app)[region.bottom - 2]
        assert f"line {201 - region.height}↵" in ends[0], "the last page is full"
        assert "line 199↵" in ends[1]


async def test_hostile_tokens_are_made_harmless_and_a_refusal_is_a_sentence(
    picture: Callable[..., EdgeApp], tmp_path: Path
) -> None:
    bad = "\x1b]0;owned\x07\x1b[31m[red]x\u202e"
    parts = [("", ""), (bad, "user"), ("b", "user")]
    names = {100: f"<|{bad}|>", **dict.fromkeys(range(20), bad)}
    app, engine = fixed(picture, parts=parts, control=(100,), names=names)
    async with app.run_test(size=SMALL) as pilot:
        screen = await read(pilot)
        assert "[red]x" in text(app)
        screen.tokens.cursor = 1
        await settle(pilot)
        assert_harmless(app)
        engine.failure = f"It failed {bad}."
        await pilot.press("c")
        await until(pilot, lambda: "It failed" in text(app))
        assert_harmless(app)
        assert "next token" not in text(app)
        engine.failure = ""
        await pilot.press("ctrl+o")
        await until(pilot, lambda: is_open(app, ScoreFileScreen))
        app.screen.dismiss(tmp_path / "missing")
        await until(pilot, lambda: "missing cannot be read" in text(app))
        (tmp_path / "file").write_text("A text.", encoding="utf-8")
        await pilot.press("ctrl+o")
        await until(pilot, lambda: is_open(app, ScoreFileScreen))
        app.screen.dismiss(tmp_path / "file")
        await until(pilot, lambda: shown(screen))
        assert (engine.requests[-1].prompt, engine.requests[-1].chat) == ("A text.", False)


def assert_harmless(app: EdgeApp) -> None:
    assert not any(char in line for line in lines(app) for char in "\x1b\x07\u202e")


async def test_a_run_that_goes_on_is_waited_for_and_leaving_stops_a_reading(
    picture: Callable[..., EdgeApp],
) -> None:
    app, engine = fixed(picture)
    engine.held = engine.waits = True
    async with app.run_test(size=SMALL) as pilot:
        bench = app.workbench
        await until(pilot, lambda: bench.session.loaded)
        bench.prompt.insert("Why?")
        await pilot.press("ctrl+j")
        await until(pilot, lambda: bench.session.run is not None and bench.session.run.steps)
        screen = await opened(pilot, prompt="")
        await until(pilot, lambda: "A run goes on: the prompt is read when it has ended." in text(app))
        engine.events.append(engine.finish(bench.session.run.id))
        await until(pilot, lambda: "Reading …" in text(app))
        engine.progress(64, 1_145)
        await until(pilot, lambda: "Reading 64 of 1,145 tokens …" in text(app))
        engine.tell()
        await until(pilot, lambda: shown(screen))
        assert bench.session.run.finished.reason == "eos", "the run was left alone"
        await pilot.press("w")
        request = engine.requests[-1]
        assert (request.prompt, request.seed) == ("Why?", bench.session.run.seed)
        assert request.prefix == bench.session.run.transcript.ids()
        engine.tell()
        await until(pilot, lambda: "what the model reads and wrote · 6 tokens" in text(app))
        assert "w answer off" in text(app)
        await pilot.press("c")
        assert "The capital" in text(app), "the prompt stays until the next one is read"
        await pilot.press("escape")
        await until(pilot, lambda: engine.cancelled == [4])


async def test_a_model_that_loads_on_demand_reads_a_prompt_and_a_text(reader: Callable[..., EdgeApp]) -> None:
    async with reader(system="Be brief.").run_test(size=SMALL) as pilot:
        await the_template_and_the_system_prompt_are_left_out(pilot, await read(pilot))
        await a_pasted_text_is_scored(pilot)


@pytest.mark.proof
async def test_a_run_finds_what_was_read_and_earlier_turns_are_read(reader: Callable[..., EdgeApp]) -> None:
    app = reader(system="Be brief.", strategy="top_p", seed=7)
    async with app.run_test(size=SMALL) as pilot:
        await read(pilot)
        await the_run_finds_the_prompt_read(pilot)
        await earlier_turns_are_read(pilot)
        store = app.history()
        assert store is not None
        await until(pilot, lambda: [entry.state for entry in store.runs()] == ["finished"] * 2)


async def the_template_and_the_system_prompt_are_left_out(pilot: Any, screen: Any) -> None:
    seen = screen.tokens.transcript.text
    system, user = "⟨im_start⟩system↵\nBe brief.⟨im_end⟩↵\n", "⟨im_start⟩user↵\nthe quick fox⟨im_end⟩↵\n"
    assert seen == system + user + "⟨im_start⟩assistant↵\n"
    await pilot.press("s")
    await until(pilot, lambda: screen.tokens.transcript.text == seen.removeprefix(system))
    await pilot.press("c")
    await until(pilot, lambda: screen.tokens.transcript.text == "the quick fox")
    assert ", raw" in str(screen.box.border_title)
    assert_readable(pilot.app)
    await pilot.press("c", "s")
    await until(pilot, lambda: screen.tokens.transcript.text == seen)


async def the_run_finds_the_prompt_read(pilot: Any) -> None:
    app, bench = pilot.app, pilot.app.workbench
    expected = int(app.session.readings.current.first.id[0])
    assert "top-p with seed 7 takes" in text(app)
    await pilot.press("escape")
    await pilot.press("ctrl+j")
    await until(pilot, lambda: bench.session.run is not None and not bench.session.busy)
    run = bench.session.run
    assert run.started.reused_tokens == run.started.prompt_tokens
    assert run.transcript.ids(1) == (expected,)


async def a_pasted_text_is_scored(pilot: Any) -> None:
    app, screen = pilot.app, pilot.app.screen
    screen.post_message(Paste("the quick brown fox\njumps over"))
    await until(pilot, lambda: "score of a text" in text(app) and "scored" in text(app))
    prompt = app.session.readings.current.prompt
    nats = float(-prompt.logp[1:].sum())
    assert f"scored: {len(prompt.ids) - 1} tokens · {nats:,.2f} nats" in text(app)
    assert screen.tokens.transcript.text == "the quick brown fox↵\njumps over"
    assert app.workbench.prompt.text == "the quick fox", "the prompt is as it was"
    screen.post_message(Paste("dog " * 300))
    await until(pilot, lambda: "but the context holds 256: shorten the" in text(app))
    await pilot.press("p")
    await until(pilot, lambda: "the quick fox" in text(app))
    await pilot.press("escape")


async def earlier_turns_are_read(pilot: Any) -> None:
    app, bench = pilot.app, pilot.app.workbench
    bench.conversation.toggle()
    bench.prompt.put("the dog")
    first = bench.session.run
    await pilot.press("ctrl+j")
    await until(pilot, lambda: bench.session.run is not first and not bench.session.busy)
    before = list(bench.conversation.talk.exchanges)
    await read(pilot, prompt="and the fox")
    prompt = app.session.readings.current.prompt
    own = {role: "".join(_texts(prompt, role)) for role in ("system", "user", "assistant")}
    assert own == {"system": "Be brief.", "user": "the dogand the fox", "assistant": before[0].answer}
    assert bench.conversation.talk.exchanges == before
    assert bench.prompt.text == "and the fox"


def _texts(prompt: Any, role: str) -> list[str]:
    return [text for text, own in zip(prompt.text, prompt.roles, strict=True) if own == role]
