"""Shows a lesson: the step that waits, or all steps where there is height for them; asks its questions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from textual.containers import VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from edge_tui.tui.actions import bindings
from edge_tui.util.formatting import clip

if TYPE_CHECKING:
    from textual.app import ComposeResult

_ASKING = "←→ move · enter answer · esc leave"
_LEAST = 16
"""Least cells of a step that is done, while the width is not known yet."""
_GAP = 2
"""Cells between two choices on a line."""


class Question(NamedTuple):
    """Describes a question that waits for its answer.

    Attributes:
        choices: The answers to choose from.
        mark: Number of the one under the cursor.
        wrong: The one that was chosen last, "" for none.
    """

    choices: tuple[str, ...]
    mark: int
    wrong: str


class Card(NamedTuple):
    """Describes what is shown.

    Attributes:
        head: Of the border.
        title: The lesson's, "" for none.
        steps: Texts of all steps.
        done: Number of steps that are done.
        note: A line on how things are, "" for none.
        hint: Of the border.
        lead: A sentence on the step before, which is shown where that is not.
        question: What the step that waits asks; None where it asks nothing.
    """

    head: str
    title: str
    steps: tuple[str, ...]
    done: int
    note: str
    hint: str
    lead: str = ""
    question: Question | None = None


class LessonCard(VerticalScroll, inherit_bindings=False):
    """Shows a card, scrolled to the step that waits; the focused card takes the keys of its question.

    Args:
        whole: True shows all steps, False the one that waits.
        id: Of the widget.
    """

    DEFAULT_CSS = """
    LessonCard { display: none; height: auto; padding: 0 1; border: round $accent;
        border-title-color: $accent; border-title-style: bold; border-subtitle-color: $text-muted; }
    LessonCard:focus { border: heavy $accent; }
    LessonCard > Static { height: auto; }
    """
    BINDINGS = bindings("lesson")

    @dataclass
    class Moved(Message):
        """Asks to move the cursor of the choices."""

        step: int

    class Answered(Message):
        """Reports that the choice under the cursor is taken."""

    def __init__(self, whole: bool, id: str) -> None:
        super().__init__(id=id)
        self._whole = whole
        self._card: Card | None = None
        self._before, self._step, self._after = (Static(markup=False) for _ in range(3))

    def compose(self) -> ComposeResult:
        """Lays out the steps that are done, the one that waits, and the others."""
        yield self._before
        yield self._step
        yield self._after

    def show(self, card: Card | None) -> None:
        """Shows a card, or none."""
        if card == self._card:
            return
        self._card = card
        self.set_class(card is not None, "-shown")
        self._paint()

    def on_focus(self) -> None:
        """Shows the cursor of the choices, once the card has the focus."""
        self.call_later(self._paint)

    def on_blur(self) -> None:
        """Takes the cursor's background away."""
        self.call_later(self._paint)

    def on_resize(self) -> None:
        """Divides the choices among lines anew."""
        self._paint()

    def action_choose(self, step: int) -> None:
        """Goes to the next choice, or the one before; scrolls where there is none."""
        if self._card is not None and self._card.question is not None:
            self.post_message(self.Moved(step))
        else:
            self.scroll_relative(y=step, animate=False)

    def action_answer(self) -> None:
        """Takes the choice under the cursor."""
        self.post_message(self.Answered())

    def _paint(self) -> None:
        card = self._card
        if card is None:
            return
        count, at = len(card.steps), min(card.done, len(card.steps) - 1)
        asking = card.question is not None and self.has_focus
        self.border_title = card.head
        self.border_subtitle = _ASKING if asking else card.hint
        before: list[Content] = []
        after: list[Content] = []
        if self._whole:
            before = [Content.styled(card.title, "bold")] if card.title else []
            before += [self._done(card, number) for number in range(at)]
            after = [Content.styled("· " + each, "$text-disabled") for each in card.steps[at + 1 :]]
            step = Content.assemble(("▸ ", "$accent"), card.steps[at])
        else:
            if card.title:
                self.border_title = f"{card.head} · {card.title} {'✓' * at}▸{'·' * (count - at - 1)}"
            step = Content(f"{card.lead} {card.steps[at]}".strip())
        if card.question is not None:
            step = Content("\n").join([step, *self._choices(card.question)])
        if card.note:
            step = Content.assemble(step, "\n" if card.question else " ", (card.note, "$text-muted"))
        for part, lines in ((self._before, before), (self._step, [step]), (self._after, after)):
            part.display = bool(lines)
            part.update(Content("\n").join(lines))
        self.call_after_refresh(self._show_step)

    def _done(self, card: Card, number: int) -> Content:
        """Writes a step that is done in one line; of a question that was just answered, all."""
        text = card.steps[number]
        if not card.lead or number < card.done - 1:
            text = clip(text, max(self.content_size.width - 2, _LEAST))
        return Content.assemble(("✓ ", "$success"), (text, "$text-muted"))

    def _show_step(self) -> None:
        """Scrolls to the step that waits, where not everything has room."""
        self.scroll_to_widget(self._step, top=True, animate=False, immediate=True)

    def _choices(self, question: Question) -> list[Content]:
        """Writes the choices, several on a line where they have room."""
        room = max(self.content_size.width, 1)
        lines: list[list[tuple[str, str]]] = [[]]
        used = 0
        for number, choice in enumerate(question.choices):
            here = number == question.mark
            mark = "✗" if choice == question.wrong else "○"
            text = f"{'▸' if here else ' '}{mark} {choice}"
            if lines[-1] and used + _GAP + cell_len(text) > room:
                lines.append([])
                used = 0
            if lines[-1]:
                lines[-1].append((" " * _GAP, ""))
                used += _GAP
            colours = "$block-cursor-foreground on $block-cursor-background" if self.has_focus else "bold"
            lines[-1].append((text, colours if here else ""))
            used += cell_len(text)
        return [Content.assemble(*line) for line in lines]
