"""Leads through a lesson: watches what is on the screen, ticks steps, asks, keeps how far the reader is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from edge_tui.tui.lessons.facts import Scene, facts, index_of
from edge_tui.tui.lessons.lesson import lessons
from edge_tui.tui.lessons.presses import RUN
from edge_tui.tui.lessons.progress import Progress
from edge_tui.tui.lessons.prompts import lesson_prompt
from edge_tui.tui.widgets.lesson_card import Card, Question
from edge_tui.tui.workbench.demonstration import Demonstration
from edge_tui.tui.workbench.ports import Messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edge_tui.tui.lessons.lesson import Fact, Lesson, Step
    from edge_tui.tui.run_params import RunParams
    from edge_tui.tui.session import Session
    from edge_tui.tui.workbench.demonstration import Keys
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
_KEYS = "main.lessons", "app.show_me"
_TOKEN_NOTES = {"p": "This one has {0:.0%}.", "rank": "This one is number {0:.0f}."}


class LessonView(Messages, Protocol):
    """Shows a lesson beside the tokens."""

    def scene(self, pressing: bool = False) -> Scene:
        """Describes the screen; while keys are pressed for the reader, also what hears them."""

    def show_lesson(self, card: Card | None) -> None:
        """Shows a card, or none."""

    def title_of(self, strategy: str) -> str:
        """Returns the title of a strategy."""

    @property
    def strategies(self) -> Sequence[str]:
        """Names in the order of their digits."""

    def focus_lesson(self) -> None:
        """Goes to the card, where a question is answered."""

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
        keys: Presses keys for the reader.
        progress: How far the reader is.
    """

    session: Session
    run_params: RunParams
    prompts: PromptController
    prompt: PromptField
    view: LessonView
    keys: Keys
    progress: Progress = field(default_factory=Progress)
    _before: int | None = None
    """Id of the run on the screen when the step began."""
    _gone: bool = False
    """True once the cursor was put where the step wants it."""
    _offering: bool = False
    _ended: tuple[str, int] = ("", 0)
    """Why the last demonstration ended, and the number of keys until then: the next takes it away."""
    _mark: int = 0
    """Number of the choice under the cursor."""

    def __post_init__(self) -> None:
        self.demonstration = Demonstration(self.session, self.keys)

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
            self.progress.answers.pop(key, None)
        self._enter()

    def leave(self) -> bool:
        """Takes the lesson off the screen; False where none waits for the reader."""
        waited = self.step is not None
        self._offering = False
        self.demonstration.end()
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
        scene = self.view.scene(self.demonstration.step is not None)
        if step.go and not self._gone and scene.screen == "workbench":
            self._go(step, scene)
        found = facts(scene, self.session, self.run_params, self._before, self._answer)
        missing = step.missing(found)
        if not missing and (self._gone or not step.go):
            self._complete()
            return
        if self.demonstration.step is step:
            self._demonstrate(step, found, scene)
        self._show(self._note(step, missing, found))

    def _complete(self) -> None:
        """Ticks the step, and waits for the next."""
        self.progress.steps[self.progress.current] += 1
        self.progress.save()
        if self.demonstration.step is not None:
            self.view.say(f"Show me pressed {self.demonstration.pressed}.", "good")
            self.demonstration.end()
        self._wait()

    # Show me.

    def show_me(self) -> None:
        """Does the step, or goes to its question; ends that where it goes on."""
        step = self.step
        if step is None:
            self.view.say(f"No step of a lesson waits; {self.keys.text('main.lessons')} lists the lessons.")
        elif self.demonstration.step is not None:
            self.demonstration.end()
        else:
            found = facts(self.view.scene(), self.session, self.run_params, self._before)
            if RUN.intersection(name.partition(".")[0] for name in step.missing(found)):
                self._insert_prompt()
            self.demonstration.begin(step)

    def _demonstrate(self, step: Step, found: dict[str, Fact], scene: Scene) -> None:
        if step.choices and scene.screen == "workbench":
            self.demonstration.end()
            self.view.focus_lesson()
            return
        sentence = self.demonstration.advance(found, scene, self.view.strategies, self._gone)
        if sentence is not None:
            self.demonstration.end()
            self._ended = sentence, self.keys.typed

    # Questions.

    def mark(self, step: int) -> None:
        """Moves the cursor of the choices."""
        if self.step is not None and self.step.choices:
            self._mark = (self._mark + step) % len(self.step.choices)
            self.tick()

    def answer(self) -> None:
        """Takes the choice under the cursor: the right one ticks the step, a wrong one says why."""
        step, lesson = self.step, self.lesson
        if step is None or lesson is None or not step.choices:
            return
        chosen = step.choices[self._mark]
        self.progress.answers.setdefault(lesson.key, {})[str(lesson.steps.index(step))] = chosen.text
        self.progress.save()
        if chosen.right:
            self.view.focus_tokens()
        self.tick()

    @property
    def _answer(self) -> str:
        """The newest choice of the step's question."""
        return self._answer_of(self.progress.steps.get(self.progress.current, 0))

    def _answer_of(self, number: int) -> str:
        return self.progress.answers.get(self.progress.current, {}).get(str(number), "")

    # The lesson on the screen.

    def _enter(self) -> None:
        self._offering = False
        self.progress.offered = True
        self.progress.steps.setdefault(self.progress.current, 0)
        self.progress.save()
        self._insert_prompt()
        self.view.focus_tokens()
        self._wait()

    def _insert_prompt(self) -> None:
        prompt = lesson_prompt(self.run_params.settings.models.name)
        if self.prompt.text != prompt:
            self.prompts.remember(self.prompt.text)
            self.prompt.put(prompt)

    def _wait(self) -> None:
        """Waits for the step that is next."""
        run, step = self.session.current, self.step
        self._before, self._gone = (run.id if run is not None else None), False
        texts = [choice.text for choice in step.choices] if step is not None else []
        self._mark = texts.index(self._answer) if self._answer in texts else 0
        self._show("")

    def _go(self, step: Step, scene: Scene) -> None:
        """Puts the cursor where the step wants it, until it is there."""
        run = self.session.current
        wanted = step.done.get("run")
        if run is None or run.transcript is None or run.active or run.started is None:
            return
        if wanted not in (None, run.started.strategy):
            return
        if (index := index_of(step.go, run.transcript)) is not None:
            self._gone = scene.token == index
            self.view.look_at_token(index)

    def _show(self, note: str) -> None:
        lesson, step = self.lesson, self.step
        if lesson is None:
            return
        done, leaves, shows = self.progress.steps[lesson.key], *map(self.keys.text, _KEYS)
        texts = [each.text for each in lesson.steps]
        lead = ""
        for number, each in enumerate(lesson.steps[:done]):
            if (choice := each.choice(self._answer_of(number))) is not None:
                texts[number] = f"{each.text} {choice.text}. {choice.why}"
                lead = choice.why if number == done - 1 else ""
        if step is None:
            texts.append(lesson.after)
            hint = f"{leaves} lists the lessons"
        else:
            hint = f"{shows} {'answer' if step.choices else 'show me'} · {leaves} leaves it; it waits"
        question = None
        if step is not None and step.choices:
            wrong = self._answer
            question = Question(tuple(each.text for each in step.choices), self._mark, wrong)
        head = f"lesson {lessons().index(lesson) + 1} of {len(lessons())}"
        self.view.show_lesson(Card(head, lesson.title, tuple(texts), done, note, hint, lead, question))

    def _note(self, step: Step, missing: list[str], found: dict[str, Fact]) -> str:
        if self.demonstration.step is step and self.demonstration.pressed:
            return f"Pressed {self.demonstration.pressed} …"
        if self._ended[0] and self._ended[1] == self.keys.typed:
            return self._ended[0]
        if step.choices:
            choice = step.choice(self._answer)
            return choice.why if choice is not None else ""
        return _note(missing[0] if missing else "", found, self.view.title_of)


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
