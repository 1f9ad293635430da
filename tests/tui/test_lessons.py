"""Lessons: each is walked by its keys on the demo pair; steps wait for all that they ask for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_tui.tui.lessons.lesson import Step, lessons
from edge_tui.tui.lessons.progress import Progress
from edge_tui.tui.lessons.prompts import CODE, STORY, lesson_prompt
from tests.tui.rendered import lines, until
from tests.tui.test_workbench import ended


def step_of(bench: Any) -> int:
    """Return how many steps of the lesson are done."""
    lesson = bench.lessons.lesson
    return -1 if lesson is None else bench.lessons.progress.steps[lesson.key]


async def walk(pilot: Any, done: int, *keys: str) -> None:
    """Press keys until so many steps are done."""
    bench = pilot.app.workbench
    for _ in range(60):
        await pilot.pause(0.05)  # a tick looks at what is on the screen
        if step_of(bench) >= done:
            return
        await pilot.press(*keys)
    raise AssertionError(f"step {done} of {bench.lessons.lesson} is never done: {lines(pilot.app)}")


async def run(pilot: Any, done: int, *keys: str) -> None:
    """Press keys that begin a run, and wait until so many steps are done by its end."""
    bench = pilot.app.workbench
    await pilot.press(*keys)
    await until(pilot, lambda: step_of(bench) >= done)


async def wait_for_cursor(pilot: Any) -> None:
    bench = pilot.app.workbench
    await until(pilot, lambda: bench.pane.cursor is not None and bench.pane.has_focus)


async def greedy(pilot: Any) -> None:
    await run(pilot, 1, "1", "ctrl+j")
    await walk(pilot, 2, "left")
    await pilot.press("e", *["right"] * 6)
    await run(pilot, 3, "ctrl+j")


async def temperature(pilot: Any) -> None:
    bench = pilot.app.workbench
    await run(pilot, 1, "4", "ctrl+j")
    await wait_for_cursor(pilot)
    await until(pilot, lambda: bench.session.current.transcript is not None)
    flat = bench.pane.cursor
    await pilot.press("enter")
    await until(pilot, lambda: bench.inspector.has_focus)
    await pilot.press("space", "down")
    await walk(pilot, 2, "right")
    await pilot.press("escape")
    await until(pilot, lambda: bench.pane.cursor != flat and bench.pane.has_focus)
    await pilot.press("enter")
    await until(pilot, lambda: bench.inspector.has_focus)
    await pilot.press("space")
    await walk(pilot, 3, "left")
    await pilot.press("escape")


async def min_p(pilot: Any) -> None:
    bench = pilot.app.workbench
    await pilot.press("4", "e", "down", *["right"] * 10)
    await run(pilot, 1, "ctrl+j")
    await walk(pilot, 2, "n")
    await run(pilot, 3, "5")
    await pilot.press("vertical_line")
    await until(pilot, lambda: pilot.app.screen is not bench)
    await pilot.press(*"top-p")
    await run(pilot, 4, "enter")
    await pilot.press("escape")


async def beams(pilot: Any) -> None:
    await run(pilot, 1, "2", "ctrl+j")
    await walk(pilot, 2, "C")
    await run(pilot, 3, "4")
    await walk(pilot, 4, "n")


async def contrastive(pilot: Any) -> None:
    await run(pilot, 1, "7", "ctrl+j")
    await pilot.press("left", "enter")
    await walk(pilot, 2, "left")
    await run(pilot, 3, "1")


async def speculative(pilot: Any) -> None:
    await run(pilot, 1, "9", "ctrl+j")
    await pilot.press("left", "enter")
    await walk(pilot, 2, "left")
    await walk(pilot, 3, "left")
    await pilot.press("e")
    await pilot.press(*["left"] * 8)
    await run(pilot, 4, "ctrl+j")


WALKS = (greedy, temperature, min_p, beams, contrastive, speculative)


LONG = (greedy, beams, contrastive)


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=each.__name__, marks=pytest.mark.proof if each in LONG else ())
        for number, each in enumerate(WALKS)
    ],
)
async def test_a_lesson_is_walked_by_its_keys(number: int, demo: Any) -> None:
    app = demo(max_length=24, seed=3)
    async with app.run_test(size=(80, 24)) as pilot:
        bench = app.workbench
        await until(pilot, lambda: bench.session.engine is not None)
        await pilot.press("f2", *["down"] * number, "enter")
        await until(pilot, lambda: bench.lessons.lesson is lessons()[number] and bench.pane.has_focus)
        assert bench.prompt.text == CODE
        await WALKS[number](pilot)
        lesson = lessons()[number]
        assert step_of(bench) == len(lesson.steps)
        await until(pilot, lambda: lesson.after.split()[0] in "".join(lines(app)))
    assert Progress.load().steps == {lesson.key: len(lesson.steps)}


async def test_a_lesson_is_left_and_comes_back_where_it_was(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        bench = pilot.app.workbench
        await until(pilot, lambda: bench.session.engine is not None)
        bench.prompt.put("a prompt of mine")
        await pilot.press("f2", "enter")
        await until(pilot, lambda: any("lesson 1 of 6" in line for line in lines(pilot.app)))
        await run(pilot, 1, "1", "ctrl+j")
        await pilot.press("f2")
        await until(pilot, lambda: not any("lesson 1 of 6" in line for line in lines(pilot.app)))
        bench.prompts.recall(-1)
        bench.prompts.recall(-1)
        assert bench.prompt.text == "a prompt of mine"  # the lesson's took its place
        await pilot.press("f2")
        await until(pilot, lambda: any("1 of 3" in line for line in lines(pilot.app)))
        await pilot.press("enter")
        await until(pilot, lambda: any("✓▸·" in line for line in lines(pilot.app)))
    async with picture().run_test(size=(80, 24)) as pilot:  # the program ends and begins again
        await until(
            pilot, lambda: any("lesson 1 of 6" in line and "✓▸·" in line for line in lines(pilot.app))
        )
        await pilot.press("f2", "f2")
        await until(pilot, lambda: pilot.app.screen is not pilot.app.workbench)
        await pilot.press("ctrl+x")
        await until(pilot, lambda: any("▸··" in line for line in lines(pilot.app)))


async def test_another_strategys_text_is_named_as_its_pane_names_it(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        bench = pilot.app.workbench
        await until(pilot, lambda: bench.session.engine is not None)
        await pilot.press("f2", "enter")
        await until(pilot, lambda: any("lesson 1 of 6" in line for line in lines(pilot.app)))
        await pilot.press("4", "ctrl+j")
        await until(pilot, lambda: "is of top-p." in " ".join(" ".join(lines(pilot.app)).split()))


async def test_a_run_from_before_ticks_nothing(picture: Any) -> None:
    async with picture().run_test(size=(80, 24)) as pilot:
        bench = pilot.app.workbench
        await until(pilot, lambda: bench.session.engine is not None)
        bench.prompt.put("Why?")
        bench.pane.focus()
        await pilot.press("1", "ctrl+j")
        await until(pilot, lambda: ended(bench))
        await pilot.press("f2", "enter")
        await until(pilot, lambda: any("lesson 1 of 6" in line for line in lines(pilot.app)))
        await pilot.pause(0.2)  # ticks that look at the run that is still there
        assert step_of(bench) == 0
        await run(pilot, 1, "ctrl+j")


async def test_all_steps_stand_in_the_sidebar_where_there_is_room(picture: Any) -> None:
    async with picture().run_test(size=(160, 45)) as pilot:
        bench = pilot.app.workbench
        await until(pilot, lambda: bench.session.engine is not None)
        await pilot.press("f2", "enter")
        await until(pilot, lambda: any("▸ Press 1" in line for line in lines(pilot.app)))
        shown = "\n".join(lines(pilot.app))
        assert "· Walk back" in shown
        assert shown.count("lesson 1 of 6") == 1
        await pilot.press("b")
        await until(pilot, lambda: "· Walk back" not in "\n".join(lines(pilot.app)))
        assert any("lesson 1 of 6" in line for line in lines(pilot.app))


async def test_lessons_are_offered_once(picture: Any) -> None:
    def offered(app: Any) -> bool:
        return any("Six lessons" in line for line in lines(app))

    for times in range(2):
        async with picture().run_test(size=(80, 24)) as pilot:
            bench = pilot.app.workbench
            await until(pilot, lambda: pilot.app.workbench.session.engine is not None)
            bench.lessons.restore(offer=True)
            await pilot.pause()
            assert offered(pilot.app) == (times == 0)
            bench.prompt.put("Why?")
            await pilot.press("ctrl+j")
            await until(pilot, lambda: not offered(pilot.app))


def test_a_step_waits_for_all_that_it_asks_for() -> None:
    step = Step("", {"run": "greedy", "ended": True, "ran.top_p": ">= 0.5"})
    assert step.missing({}) == "run"
    assert step.missing({"run": "beam", "ended": True, "ran.top_p": 0.9}) == "run"
    assert step.missing({"run": "greedy", "ended": True, "ran.top_p": 0.4}) == "ran.top_p"
    assert step.missing({"run": "greedy", "ended": True, "ran.top_p": "?"}) == "ran.top_p"
    assert step.missing({"run": "greedy", "ended": True, "ran.top_p": 0.5}) is None
    assert Step("", {"p": "<= 0.5"}).missing({"p": 0.6}) == "p"


def test_a_damaged_file_of_progress_is_a_fresh_start(home: Path) -> None:
    kept = Progress({"1-greedy": 2}, "1-greedy", True)
    kept.save()
    assert Progress.load() == kept
    file = next(home.rglob("lessons.json"))
    for text in ("", "{", "[]", '{"steps": [], "current": "", "offered": true}', '{"steps": {"a": "b"}}'):
        file.write_text(text)
        assert Progress.load() == Progress()


def test_the_prompt_suits_what_the_model_was_trained_on(tmp_path: Path) -> None:
    assert lesson_prompt("demo/expert") == CODE
    assert lesson_prompt("not/there") == STORY
    (tmp_path / "config.json").write_text("{}")
    card = tmp_path / "README.md"
    for language, prompt in (("en", STORY), ("[en, code]", CODE), ("code", CODE)):
        card.write_text(f"---\nlicense: mit\nlanguage: {language}\n---\n\nlanguage: code\n")
        assert lesson_prompt(str(tmp_path)) == prompt
