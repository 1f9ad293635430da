"""Lists the lessons, with how far each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from textual.content import Content

from edge_tui.tui.actions import bindings
from edge_tui.tui.lessons.lesson import lessons
from edge_tui.tui.screens.filter_list import FilterListScreen, Item

if TYPE_CHECKING:
    from textual.widgets import OptionList

    from edge_tui.tui.lessons.progress import Progress


class Chosen(NamedTuple):
    """Names a lesson, and says if it begins from its first step."""

    key: str
    again: bool


class LessonsScreen(FilterListScreen[Chosen]):
    """Returns a lesson.

    Args:
        progress: How far each is. The cursor begins on the first that is not done.
    """

    BINDINGS = bindings("lessons")
    heading = "lessons"
    hint = "enter begin or go on · ^x from the first step · esc leave"

    def __init__(self, progress: Progress) -> None:
        self._lessons = {lesson.key: lesson for lesson in lessons()}
        self._done = {key: progress.steps.get(key, 0) for key in self._lessons}
        open_ones = (key for key, lesson in self._lessons.items() if self._done[key] < len(lesson.steps))
        super().__init__(next(open_ones, ""))

    def items(self) -> list[Item]:
        """Lists the lessons in order."""
        found = []
        for number, (key, lesson) in enumerate(self._lessons.items(), 1):
            done, count = self._done[key], len(lesson.steps)
            state = "✓" if done >= count else f"{done} of {count}" if done else ""
            content = Content.assemble(
                (f"{number} ", "$text-muted"), (f"{lesson.title:<42}", "bold"), (state, "$success")
            )
            found.append(Item(key, lesson.title, content, help=" ".join(step.text for step in lesson.steps)))
        return found

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Shows the step that waits; after the last one, what was seen."""
        lesson = self._lessons[event.option_id or ""]
        done = self._done[lesson.key]
        self.about.update(lesson.steps[done].text if done < len(lesson.steps) else lesson.after)

    def choose(self, id: str) -> None:
        """Closes with a lesson."""
        self.dismiss(Chosen(id, again=False))

    def action_restart(self) -> None:
        """Closes with the lesson under the cursor, from its first step."""
        if key := self.highlighted:
            self.dismiss(Chosen(key, again=True))
