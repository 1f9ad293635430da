"""Asks for a larger terminal where it is too small, and keeps the focus when a size hides its widget."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from edge_tui.tui.compositor import RowCompositor
from edge_tui.tui.services import services

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual import events
    from textual.geometry import Size
    from textual.widget import Widget

MINIMUM = (60, 16)
"""Columns and lines below which the screen only asks to be enlarged."""
WIDE, TALL, HIGH = 150, 34, 46
"""Least columns for an inspector beside the sidebar; least lines for one strategy a line, and for the list of
strategies, parameters and inspector one above the other."""


class SizedScreen(Screen[None]):
    """Has classes for its size, and a notice `#too-small` in place of `#workbench` in a terminal that is.

    Args:
        size: Columns and lines of the terminal.
    """

    HORIZONTAL_BREAKPOINTS = [  # noqa: RUF012 - Textual declares it so
        (0, "-tiny"),
        (MINIMUM[0], "-narrow"),
        (100, "-normal"),
        (WIDE, "-wide"),
    ]
    VERTICAL_BREAKPOINTS = [  # noqa: RUF012
        (0, "-flat"),
        (MINIMUM[1], "-short"),
        (TALL, "-tall"),
    ]

    def __init__(self, size: Size) -> None:
        # Textual tells the size only after it has styled everything, and then would style all of it again.
        super().__init__(classes=" ".join(self._classes_at(size)))
        self._compositor = RowCompositor()
        self._unfocused: Widget | None = None
        """Widget that had the focus until it was hidden."""

    @classmethod
    def _classes_at(cls, size: Size) -> Iterator[str]:
        """Yields the screen's classes for a size, before the user has folded or opened anything."""
        for length, points in zip(size, (cls.HORIZONTAL_BREAKPOINTS, cls.VERTICAL_BREAKPOINTS), strict=True):
            yield max(point for point in points if point[0] <= length)[1]
        if size.width >= WIDE:
            yield "-inspecting"

    def _compositor_refresh(self) -> None:
        """Renders changes, but not while changes are gathered: the result would be thrown away."""
        if not services(self).gathering:
            super()._compositor_refresh()

    @property
    def too_small(self) -> bool:
        """True where the terminal has no room for the workbench."""
        return self.has_class("-tiny") or self.has_class("-flat")

    def on_resize(self, event: events.Resize) -> None:
        """Writes the notice of a terminal that is too small, and restores the focus."""
        width, height = event.size
        self.query_one("#too-small", Static).update(
            Content(
                f"edge-tui needs {MINIMUM[0]}×{MINIMUM[1]},\n"
                f"this terminal is {width}×{height}.\n\nPlease enlarge it."
            )
        )
        self.call_after_refresh(self._refocus)

    def _reset_focus(self, widget: Widget, avoiding: list[Widget] | None = None) -> None:
        """Takes the focus from a removed or hidden widget, unless only the terminal's size hides it.

        Keys would become commands. A terminal may have room again before the widget hears that it is hidden.
        """
        hidden = any(not node.display and node.id != "workbench" for node in widget.ancestors_with_self)
        if avoiding or hidden or not widget.focusable:
            super()._reset_focus(widget, avoiding)
            self._unfocused = widget if hidden and self.focused is None else None

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Takes back the room of a widened inspector that hides what gets the focus: no key is lost."""
        if not event.widget.display:
            self.remove_class("-widened")

    def _refocus(self) -> None:
        """Restores the focus of a widget that another size had hidden, if no other has it."""
        widget, self._unfocused = self._unfocused, None
        if widget is not None and self.focused is None:
            if widget.region:
                widget.focus()
            else:
                self._unfocused = widget
