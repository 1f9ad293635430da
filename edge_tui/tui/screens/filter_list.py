"""Filters a list by what is typed; the base of the dialogs that choose one of many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from textual.content import Content
from textual.fuzzy import Matcher
from textual.widgets.option_list import Option

from edge_tui.tui.actions import bindings
from edge_tui.tui.screens.dialog import Dialog
from edge_tui.tui.services import services
from edge_tui.tui.widgets.choice_list import ChoiceList
from edge_tui.tui.widgets.field import Field
from edge_tui.tui.widgets.fitted_text import FittedText

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.widget import Widget
    from textual.widgets import Input, OptionList

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """Describes one line of the list.

    Attributes:
        id: Result of choosing it.
        search: Text that the filter looks at, letter by letter.
        content: Line in the list; already sanitised.
        help: Its explanation; the filter looks for words there.
        group: Heading above it and the items that follow it, where the list is not filtered.
    """

    id: str
    search: str
    content: Content
    help: str = ""
    group: str = ""


def has_words(text: str, query: str) -> bool:
    """Tells whether all words of a query are in a sentence; its letters alone are in every sentence."""
    return all(word in text.casefold() for word in query.casefold().split())


class FilterListScreen(Dialog[T], Generic[T]):
    """Shows a filter above a list; the arrow keys move in the list while the filter has the focus.

    Args:
        chosen: Id of the item that the cursor begins on.
    """

    BINDINGS = bindings("list")
    AUTO_FOCUS = "Input"
    hint = "type to filter · ↑↓ move · enter choose · esc leave"
    placeholder = "filter"

    def __init__(self, chosen: str = "") -> None:
        super().__init__()
        self._chosen = chosen
        self._items: list[Item] = []
        self._query = ""
        self.field = Field(self.placeholder)
        self.options = ChoiceList(markup=False)
        self.about = FittedText(classes="hint")
        """Lines below the list, about the item under the cursor."""

    def items(self) -> Sequence[Item]:
        """Lists the items to choose from."""
        raise NotImplementedError

    def content(self) -> Iterable[Widget]:
        """Lists field, list and description."""
        return self.field, self.options, self.about

    def on_mount(self) -> None:
        """Fills the list."""
        self.reload()

    def reload(self) -> None:
        """Reads the items again and shows those that match."""
        self._items = list(self.items())
        self._filter(self.field.value)

    def _filter(self, query: str) -> None:
        """Shows the items that match a query, the best match first, which the cursor goes to if it is new."""
        items, at = self._items, self.highlighted or self._chosen
        if query.strip():
            matcher = Matcher(query)
            scored = [
                (max(matcher.match(item.search), 0.5 * has_words(item.help, query)), item) for item in items
            ]
            items = [item for score, item in sorted(scored, key=lambda pair: -pair[0]) if score > 0]
            at = self.highlighted if query == self._query else ""
        self._query = query
        options: list[Option] = []
        group = ""
        for item in items:
            if item.group != group and not query.strip():
                group = item.group
                options.append(Option(Content.styled(f"─ {group}", "$text-muted"), disabled=True))
            options.append(Option(item.content, id=item.id))
        ids = [option.id for option in options]
        first = next((i for i, id in enumerate(ids) if id), None)
        self.options.clear_options()
        self.options.add_options(options)
        self.options.highlighted = ids.index(at) if at in ids else first
        if not items:
            self.about.update("Nothing matches.")

    @property
    def highlighted(self) -> str:
        """Id of the item under the cursor; "" for none."""
        option = self.options.highlighted_option
        return (option.id or "") if option is not None else ""

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filters by what is typed."""
        event.stop()
        self._filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Chooses the item under the cursor."""
        event.stop()
        if chosen := self.highlighted:
            self.choose(chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Chooses the item that was clicked."""
        event.stop()
        if event.option_id:
            self.choose(event.option_id)

    def action_move(self, step: int) -> None:
        """Moves the cursor of the list while the field has the focus."""
        for _ in range(abs(step)):
            self.options.action_cursor_down() if step > 0 else self.options.action_cursor_up()

    def action_show_help(self) -> None:
        """Opens the help."""
        services(self).action_show_help()

    def choose(self, id: str) -> None:
        """Acts on the chosen item; returns its id, unless a list does something else."""
        self.dismiss(cast("T", id))
