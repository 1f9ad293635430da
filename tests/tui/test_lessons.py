"""Lessons: each is walked on the demo pair; steps wait for all that they ask for, questions for answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_textual_snapshot import SVGImageExtension

from edge_tui.tui.lessons.lesson import Lesson, Step, lessons
from edge_tui.tui.lessons.progress import Progress
from edge_tui.tui.lessons.prompts import CODE, STORY, lesson_prompt
from edge_tui.tui.screens.lessons import LessonsScreen
from edge_tui.tui.widgets.lesson_card import LessonCard
from edge_tui.util.logs import state_folder
from tests.tui.engines import PictureEngine
from tests.tui.rendered import is_open, lines, settle, until, was_said
from tests.tui.test_workbench import ended


def step_of(bench: Any) -> int:
    """Return how many steps of the lesson are done."""
    lesson = bench.lessons.lesson
    return -1 if lesson is None else bench.lessons.progress.steps[lesson.key]


async def run(pilot: Any, done: int, *keys: str) -> None:
    """Press keys that begin a run, and wait until so many steps are done by its end."""
    bench = pilot.app.workbench
    await pilot.press(*keys)
    await until(pilot, lambda: step_of(bench) >= done)


def card(app: Any) -> str:
    """The text of the card on the screen, without its border."""
    areas = [each.region for each in app.workbench.view.lesson_cards if each.region]
    inner = (
        line[area.x + 1 : area.right - 1]
        for area in areas
        for line in lines(app)[area.y + 1 : area.bottom - 1]
    )
    return " ".join(" ".join(inner).split())


async def show(pilot: Any, step: Step) -> None:
    """Let a step be shown until it is done, or until its question has the focus."""
    bench = pilot.app.workbench
    await pilot.press("f3")
    await until(
        pilot,
        lambda: bench.lessons.step is not step or isinstance(bench.focused, LessonCard),
        f"{step.text}: {bench.lessons.demonstration.pressed}",
    )


async def choose(pilot: Any, right: bool) -> None:
    """Choose the right answer, or the first wrong one."""
    bench = pilot.app.workbench
    choices = bench.lessons.step.choices
    wanted = next(choice for choice in choices if choice.right == right)
    for _ in choices:
        if f"▸○ {wanted.text}" in card(pilot.app):
            break
        await pilot.press("right")
    await pilot.press("enter")


async def walk(pilot: Any, lesson: Lesson) -> None:
    """Begin the first lesson of the list that is not done, and let it be shown to its end."""
    bench = pilot.app.workbench
    await pilot.press("f2")
    await until(pilot, lambda: is_open(pilot.app, LessonsScreen))
    await pilot.press("enter")
    await until(pilot, lambda: bench.lessons.lesson is lesson and bench.pane.has_focus)
    assert bench.prompt.text == CODE
    for number, step in enumerate(lesson.steps):
        assert step_of(bench) == number
        await show(pilot, step)
        if step.choices:
            await choose(pilot, right=True)
            right = next(choice for choice in step.choices if choice.right)
            await until(pilot, lambda right=right: card(pilot.app) == f"{right.why} {lesson.after}")


@pytest.mark.parametrize(
    "numbers",
    [pytest.param((1, 2, 5), id="short"), pytest.param((0, 3, 4), id="long", marks=pytest.mark.proof)],
)
async def test_lessons_are_walked_by_show_me_and_the_right_choices(
    numbers: tuple[int, ...], demo: Any
) -> None:
    complete = {lesson.key: len(lesson.steps) for lesson in lessons()}
    walked = [lessons()[number] for number in numbers]
    Progress(
        {key: steps for key, steps in complete.items() if key not in {each.key for each in walked}}
    ).save()
    app = demo(max_length=24, seed=3)
    async with app.run_test(size=(80, 24)) as pilot:
        app.workbench.lessons.demonstration.pause = 0.0
        await until(pilot, lambda: app.workbench.session.engine is not None)
        for lesson in walked:
            await walk(pilot, lesson)
    assert Progress.load().steps == complete


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
        await until(pilot, lambda: any("1 of 4" in line for line in lines(pilot.app)))
        await pilot.press("enter")
        await until(pilot, lambda: any("✓▸··" in line for line in lines(pilot.app)))
    async with picture().run_test(size=(80, 24)) as pilot:  # the program ends and begins again
        await until(
            pilot, lambda: any("lesson 1 of 6" in line and "✓▸··" in line for line in lines(pilot.app))
        )
        await pilot.press("f2", "f2")
        await until(pilot, lambda: pilot.app.screen is not pilot.app.workbench)
        await pilot.press("ctrl+x")
        await until(pilot, lambda: any("▸···" in line for line in lines(pilot.app)))


@pytest.fixture
def asked(home: Path) -> None:
    """The last step of the first lesson waits, as a version without questions has written it."""
    file = state_folder() / "lessons.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"steps": {"1-greedy": 3}, "current": "1-greedy", "offered": True}))


@pytest.mark.usefixtures("asked")
async def test_a_wrong_choice_says_why_and_stays_until_the_right_one(picture: Any, snapshot: Any) -> None:
    question = lessons()[0].steps[3]
    wrong, right, other = question.choices
    async with picture().run_test(size=(80, 24)) as pilot:
        bench = pilot.app.workbench
        await until(pilot, lambda: question.text in card(pilot.app))
        await show(pilot, question)
        await pilot.press("enter")
        await until(pilot, lambda: wrong.why in card(pilot.app))
        assert f"▸✗ {wrong.text} ○ {right.text} ○ {other.text}" in card(pilot.app)
        assert step_of(bench) == 3
        await settle(pilot)
        assert pilot.app.export_screenshot() == snapshot.use_extension(SVGImageExtension)(name="question")
        await pilot.press("up", "enter", "escape")
        await until(pilot, lambda: other.why in card(pilot.app))
        assert bench.focused is bench.pane
    async with picture(ascii=True).run_test(size=(160, 45)) as pilot:  # the program ends and begins again
        await until(pilot, lambda: f">x {other.text} {other.why}" in card(pilot.app))
        assert f"* {wrong.text} * {right.text}" in card(pilot.app)
        await show(pilot, question)
        await pilot.press("left", "enter")
        await until(pilot, lambda: step_of(pilot.app.workbench) == 4)
        assert f"+ {question.text} {right.text}. {right.why} > {lessons()[0].after}" in card(pilot.app)
        assert pilot.app.workbench.focused is pilot.app.workbench.pane
    assert Progress.load().answers == {"1-greedy": {"3": right.text}}


async def test_show_me_presses_the_keys_of_the_user_from_wherever_they_are(picture: Any) -> None:
    app = picture()
    app.settings = replace(app.settings, keys={"run": "f5", "show_me": "f4"})
    async with app.run_test(size=(80, 24)) as pilot:
        bench = app.workbench
        await until(pilot, lambda: bench.session.engine is not None)
        await pilot.press("f4")
        await until(pilot, lambda: was_said("No step of a lesson waits; f2 lists the lessons."))
        await pilot.press("f2", "enter")
        await until(pilot, lambda: any("f4 show me" in line for line in lines(app)))
        await pilot.press("p", "!", "ctrl+p")
        await pilot.press("f4")
        await until(pilot, lambda: step_of(bench) == 1)
        assert was_said("Show me pressed esc ×2, 1, f5.")
        assert bench.prompt.text == CODE


async def test_show_me_ends_with_a_key_and_where_it_comes_no_further(picture: Any) -> None:
    engine = PictureEngine()
    engine.refusals = {"greedy": "Not here."}
    async with picture(engine).run_test(size=(80, 24)) as pilot:
        bench = pilot.app.workbench
        await until(pilot, lambda: bench.strategies.refusals)
        await pilot.press("f2", "enter")
        await until(pilot, lambda: bench.lessons.lesson is not None and bench.pane.has_focus)
        await pilot.press("f3")
        await until(pilot, lambda: "Pressed 1" in card(pilot.app))
        await pilot.press("h")
        await until(pilot, lambda: "Pressed" not in card(pilot.app))
        assert "no further" not in card(pilot.app)
        bench.lessons.demonstration.patience = 0.3
        await pilot.press("f3")
        await until(pilot, lambda: "Show me comes no further here." in card(pilot.app))
        assert was_said("Not here.")
        assert step_of(bench) == 0


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
    assert step.missing({}) == ["run", "ended", "ran.top_p"]
    assert step.missing({"run": "beam", "ended": True, "ran.top_p": 0.9}) == ["run"]
    assert step.missing({"run": "greedy", "ended": True, "ran.top_p": 0.4}) == ["ran.top_p"]
    assert step.missing({"run": "greedy", "ended": True, "ran.top_p": "?"}) == ["ran.top_p"]
    assert step.missing({"run": "greedy", "ended": True, "ran.top_p": 0.5}) == []
    assert Step("", {"p": "<= 0.5"}).missing({"p": 0.6}) == ["p"]


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
