"""Shows a lesson: the step that waits, or all steps where there is height for them."""

from __future__ import annotations

from typing import NamedTuple

from textual.content import Content
from textual.widgets import Static


class Card(NamedTuple):
    """Describes what is shown.

    Attributes:
        head: Of the border.
        title: The lesson's, "" for none.
        steps: Texts of all steps.
        done: Number of steps that are done.
        note: A line on how things are, "" for none.
        hint: Of the border.
    """

    head: str
    title: str
    steps: tuple[str, ...]
    done: int
    note: str
    hint: str


class LessonCard(Static):
    """Shows a card; takes no keys.

    Args:
        whole: True shows all steps, False the one that waits.
        id: Of the widget.
    """

    DEFAULT_CSS = """
    LessonCard { display: none; height: auto; padding: 0 1; border: round $accent;
        border-title-color: $accent; border-title-style: bold; border-subtitle-color: $text-muted; }
    """

    def __init__(self, whole: bool, id: str) -> None:
        super().__init__(id=id, markup=False)
        self._whole = whole
        self._card: Card | None = None

    def show(self, card: Card | None) -> None:
        """Shows a card, or none."""
        if card == self._card:
            return
        self._card = card
        self.set_class(card is not None, "-shown")
        if card is None:
            return
        count, at = len(card.steps), min(card.done, len(card.steps) - 1)
        self.border_title = card.head
        self.border_subtitle = card.hint
        if self._whole:
            title = [Content.styled(card.title, "bold")] if card.title else []
            lines = [*title, *(_line(card, number) for number in range(count))]
            self.update(Content("\n").join(lines))
        else:
            if card.title:
                self.border_title = f"{card.head} · {card.title} {'✓' * at}▸{'·' * (count - at - 1)}"
            note = f" {card.note}" if card.note else ""
            self.update(Content.assemble(card.steps[at], (note, "$text-muted")))


def _line(card: Card, number: int) -> Content:
    text = card.steps[number]
    if number < card.done:
        return Content.assemble(("✓ ", "$success"), (text, "$text-muted"))
    if number > card.done:
        return Content.assemble(("· " + text, "$text-disabled"))
    note = f" {card.note}" if card.note else ""
    return Content.assemble(("▸ ", "$accent"), text, (note, "$text-muted"))
