"""Filters a list by what is typed; the base of the strategy, theme and model dialogs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from textual.containers import Vertical
from textual.fuzzy import Matcher
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from edge_tui.tui.actions import bindings
from edge_tui.tui.services import services
from edge_tui.tui.widgets.field import Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.content import Content

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """Describes one line of the list.

    Attributes:
        id: What choosing it returns.
        search: Text that the filter looks at, letter by letter.
        content: What is shown; already sanitised.
        disabled: Shown, but not to be chosen.
        help: Its explanation; the filter looks for words there.
    """

    id: str
    search: str
    content: Content
    disabled: bool = False
    help: str = ""


def has_words(text: str, query: str) -> bool:
    """Tells whether all words of a query are in a sentence; its letters alone are in every sentence."""
    return all(word in text.casefold() for word in query.casefold().split())


class FilterListScreen(ModalScreen[T | None], Generic[T]):
    """Shows a filter above a list; the arrow keys move in the list while the filter has the focus."""

    DEFAULT_CSS = """
    FilterListScreen OptionList { max-height: 18; }
    """
    BINDINGS = bindings("list")
    AUTO_FOCUS = "Input"
    heading = ""
    hint = "type to filter · ↑↓ move · enter choose · esc leave"

    def __init__(self, chosen: str = "") -> None:
        super().__init__()
        self._chosen = chosen
        self._items: list[Item] = []

    def items(self) -> Sequence[Item]:
        """Lists the items to choose from."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = self.heading
            dialog.border_subtitle = self.hint
            yield Field("filter")
            yield OptionList(markup=False)
            yield Static("", markup=False, classes="hint")

    def on_mount(self) -> None:
        self.reload()

    def reload(self) -> None:
        """Reads the items again and shows those that match."""
        self._items = list(self.items())
        self._filter(self.query_one(Input).value)

    def _filter(self, query: str) -> None:
        listing = self.query_one(OptionList)
        highlighted = self._highlighted() or self._chosen
        items = self._items
        if query.strip():
            matcher = Matcher(query)
            scored = [
                (max(matcher.match(item.search), 0.5 * has_words(item.help, query)), item) for item in items
            ]
            items = [item for score, item in sorted(scored, key=lambda pair: -pair[0]) if score > 0]
            highlighted = ""
        listing.clear_options()
        listing.add_options([Option(item.content, id=item.id, disabled=item.disabled) for item in items])
        ids = [item.id for item in items]
        enabled = [i for i, item in enumerate(items) if not item.disabled]
        if highlighted in ids and not items[ids.index(highlighted)].disabled:
            listing.highlighted = ids.index(highlighted)
        else:
            listing.highlighted = enabled[0] if enabled else None
        if not items:
            self.query_one(".hint", Static).update("Nothing matches.")

    def _highlighted(self) -> str:
        listing = self.query_one(OptionList)
        if listing.highlighted is None:
            return ""
        return listing.get_option_at_index(listing.highlighted).id or ""

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._filter(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        if chosen := self._highlighted():
            self.choose(chosen)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if event.option_id:
            self.choose(event.option_id)

    def action_move(self, step: int) -> None:
        listing = self.query_one(OptionList)
        for _ in range(abs(step)):
            if step > 0:
                listing.action_cursor_down()
            else:
                listing.action_cursor_up()

    def action_show_help(self) -> None:
        services(self).action_show_help()

    def action_leave(self) -> None:
        self.dismiss(None)

    def choose(self, id: str) -> None:
        """Acts on the chosen item; returns its id, unless a list does something else."""
        self.dismiss(cast("T", id))
