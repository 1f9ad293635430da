"""Leads through a lesson: watches what is on the screen, ticks steps, keeps how far the reader is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_tui.tui.lessons.facts import Scene, facts, index_of
from edge_tui.tui.lessons.lesson import lessons
from edge_tui.tui.lessons.progress import Progress
from edge_tui.tui.lessons.prompts import lesson_prompt
from edge_tui.tui.widgets.lesson_card import Card

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge_tui.tui.lessons.lesson import Fact, Lesson, Step
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session
    from edge_tui.tui.workbench.ports import PromptField
    from edge_tui.tui.workbench.prompt_controller import PromptController

_OFFER = Card(
    "lessons",
    "",
    ("Six lessons of ninety seconds show what strategies do, by doing it. f2 opens them, now or later.",),
    0,
    "",
    "^j runs a prompt without them",
)
_TOKEN_NOTES = {"p": "This one has {0:.0%}.", "rank": "This one is number {0:.0f}."}


class LessonView(Protocol):
    """Shows a lesson beside the tokens."""

    @property
    def scene(self) -> Scene:
        """The state of the screen."""

    def show_lesson(self, card: Card | None) -> None:
        """Shows a card, or none."""

    def title_of(self, strategy: str) -> str:
        """Returns the title of a strategy."""

    def look_at_token(self, index: int) -> None:
        """Puts the cursor on a token of the run on the screen."""

    def focus_tokens(self) -> None:
        """Goes to the tokens, where digits choose strategies."""


@dataclass(eq=False)
class LessonController:
    """Ticks the steps of the lesson on the screen.

    Attributes:
        session: Engine and runs.
        run_params: Values of the next request.
        prompts: Remembers the prompt that the lesson's takes the place of.
        prompt: The field.
        view: Shows the lesson.
        progress: How far the reader is.
    """

    session: Session
    run_params: RunParams
    prompts: PromptController
    prompt: PromptField
    view: LessonView
    progress: Progress = field(default_factory=Progress)
    _before: int | None = None
    """Id of the run on the screen when the step began."""
    _gone: bool = False
    """True once the cursor was put where the step wants it."""
    _offering: bool = False

    @property
    def lesson(self) -> Lesson | None:
        """The lesson on the screen."""
        return next((lesson for lesson in lessons() if lesson.key == self.progress.current), None)

    @property
    def step(self) -> Step | None:
        """The step that waits; None where there is none."""
        lesson = self.lesson
        at = self.progress.steps.get(self.progress.current, 0)
        return lesson.steps[at] if lesson is not None and at < len(lesson.steps) else None

    def restore(self, offer: bool) -> None:
        """Shows the lesson that the program was left in; where there is none, `offer` says so once."""
        self.progress = Progress.load()
        if self.lesson is not None:
            self._enter()
        elif offer and not self.progress.offered:
            self._offering = True
            self.view.show_lesson(_OFFER)

    def begin(self, key: str, again: bool = False) -> None:
        """Begins a lesson, or goes on where it was left; one that was completed begins again."""
        done = self.progress.steps.get(key, 0)
        self.progress.current = key
        if (lesson := self.lesson) is None:
            return
        if again or done >= len(lesson.steps):
            self.progress.steps[key] = 0
        self._enter()

    def leave(self) -> bool:
        """Takes the lesson off the screen; False where none waits for the reader."""
        waited = self.step is not None
        self._offering = False
        self.progress.current, self.progress.offered = "", True
        self.progress.save()
        self.view.show_lesson(None)
        return waited

    def tick(self) -> None:
        """Ticks the step once what it waits for has come."""
        run = self.session.current
        if self._offering:
            if run is not None:
                self.leave()
            return
        step = self.step
        if step is None:
            return
        scene = self.view.scene
        if step.go and not self._gone and scene.screen == "workbench":
            self._go(step)
        found = facts(scene, run, self.run_params, self._before)
        missing = step.missing(found)
        if missing is None and (self._gone or not step.go):
            self.progress.steps[self.progress.current] += 1
            self.progress.save()
            self._wait()
        else:
            self._show(_note(missing or "", found, self.view.title_of))

    def _enter(self) -> None:
        self._offering = False
        self.progress.offered = True
        self.progress.steps.setdefault(self.progress.current, 0)
        self.progress.save()
        prompt = lesson_prompt(self.run_params.settings.models.name)
        if self.prompt.text != prompt:
            self.prompts.remember(self.prompt.text)
            self.prompt.put(prompt)
        self.view.focus_tokens()
        self._wait()

    def _wait(self) -> None:
        """Waits for the step that is next."""
        run = self.session.current
        self._before, self._gone = (run.id if run is not None else None), False
        self._show("")

    def _go(self, step: Step) -> None:
        run = self.session.current
        wanted = step.done.get("run")
        if run is None or run.transcript is None or run.active or run.started is None:
            return
        if (
            wanted in (None, run.started.strategy)
            and (index := index_of(step.go, run.transcript)) is not None
        ):
            self._gone = True
            self.view.look_at_token(index)

    def _show(self, note: str) -> None:
        lesson = self.lesson
        if lesson is None:
            return
        number = lessons().index(lesson) + 1
        done = self.progress.steps[lesson.key]
        head = f"lesson {number} of {len(lessons())}"
        texts = tuple(step.text for step in lesson.steps)
        if done < len(texts):
            card = Card(head, lesson.title, texts, done, note, "f2 leaves it; it waits")
        else:
            card = Card(head, lesson.title, (*texts, lesson.after), done, "", "f2 lists the lessons")
        self.view.show_lesson(card)


def _note(missing: str, found: dict[str, Fact], title_of: Callable[[str], str]) -> str:
    """Says how far the reader is from a fact, where that can be said; "" elsewhere."""
    value = found.get(missing)
    kind, _, name = missing.rpartition(".")
    if missing == "run" and value is not None:
        return f"The text on the screen is of {title_of(str(value))}."
    if kind in ("value", "ran") and isinstance(value, float | int):
        return f"Now {name.replace('_', ' ')} is {value:g}."
    return (
        _TOKEN_NOTES[name].format(value)
        if kind == "token" and name in _TOKEN_NOTES and value is not None
        else ""
    )
