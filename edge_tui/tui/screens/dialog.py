"""Frames a modal screen: a box with its title above and its keys below."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from textual.containers import Vertical
from textual.renderables.background_screen import BackgroundScreen
from textual.screen import ModalScreen

from edge_tui.tui.backdrop import Backdrop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType
    from textual.app import ComposeResult
    from textual.visual import Visual
    from textual.widget import Widget

T = TypeVar("T")


class Dialog(ModalScreen[T | None], Generic[T]):
    """Shows widgets in a box; esc returns None.

    Args:
        heading: Title in the upper border; that of the class if empty.
        hint: Keys in the lower border; those of the class if empty.
    """

    heading = ""
    hint = ""

    def __init__(self, heading: str = "", hint: str = "") -> None:
        super().__init__()
        self.box = self.make_box()
        self.box.border_title = heading or self.heading
        self.box.border_subtitle = hint or self.hint

    def make_box(self) -> Widget:
        """Makes the box around the content."""
        return Vertical(classes="dialog")

    def content(self) -> Iterable[Widget]:
        """Lists the widgets in the box."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        """Puts the content into the box."""
        with self.box:
            yield from self.content()

    def render(self) -> RenderableType | Visual:  # type: ignore[override]  # as any widget
        """Renders the screen behind."""
        behind = super().render()
        return Backdrop(behind) if isinstance(behind, BackgroundScreen) else behind

    def action_leave(self) -> None:
        """Closes without an answer."""
        self.dismiss(None)
