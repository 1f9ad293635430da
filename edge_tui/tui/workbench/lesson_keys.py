"""Hands the keys of lessons to their controller."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_tui.tui.widgets.lesson_card import LessonCard

if TYPE_CHECKING:
    from edge_tui.tui.workbench.dialogs import WorkbenchDialogs
    from edge_tui.tui.workbench.lesson_controller import LessonController


class LessonKeys:
    """Has a method for each key of a lesson.

    Attributes:
        lessons: Leads through the lesson on the screen.
        dialogs: Pushes dialogs.
    """

    lessons: LessonController
    dialogs: WorkbenchDialogs

    def action_lessons(self) -> None:
        """Leaves the lesson, or lists all."""
        if self.lessons.leave():
            self.lessons.view.say("The lesson waits as it is; f2 lists all.")
        else:
            self.dialogs.show_lessons(self.lessons)

    def on_lesson_card_moved(self, event: LessonCard.Moved) -> None:
        """Goes to another choice of the question."""
        self.lessons.mark(event.step)

    def on_lesson_card_answered(self) -> None:
        """Takes the choice."""
        self.lessons.answer()
