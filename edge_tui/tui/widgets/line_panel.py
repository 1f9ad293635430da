"""Paints a small panel line by line, and only the lines that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.style import Style as VisualStyle
from textual.widget import Widget

from edge_tui.transcript.fitting import fit_end as fit_end
from edge_tui.transcript.fitting import fit_start as fit_start
from edge_tui.transcript.fitting import pad as pad
from edge_tui.transcript.fitting import tail_start as tail_start
from edge_tui.tui.ascii_filter import in_panel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.filter import LineFilter

Parts = list[tuple[str, str]]
"""Texts with their styles ("$text-muted italic"; "" for that of the widget)."""
Line = tuple[tuple[str, str], ...]
"""The parts of one line."""


class LinePanel(Widget):
    """Paints a few lines that follow the panel's size; the base of such panels."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._lines: Sequence[Line] = ()
        self._rich_styles: dict[str, Style] = {}

    def compose_lines(self, width: int, height: int) -> list[Line]:
        """Composes the lines for a size. Texts are sanitised already; long ones are cut."""
        raise NotImplementedError

    def update_lines(self) -> None:
        """Composes the lines again and repaints those that differ."""
        width, height = self.size
        if not width or not height:
            return
        before, self._lines = self._lines, self.compose_lines(width, height)
        for y in range(max(len(before), len(self._lines))):
            if before[y : y + 1] != self._lines[y : y + 1]:
                self.refresh(Region(0, y, width, 1))

    def on_resize(self) -> None:
        """Composes the lines for the new size."""
        self._lines = ()
        self.update_lines()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        """Returns one of the composed lines; blank below the last."""
        base = self._style("")
        if y >= len(self._lines):
            return Strip.blank(self.size.width, base)
        strip = Strip(Segment(text, self._style(style)) for text, style in self._lines[y] if text)
        return strip.adjust_cell_length(self.size.width, base)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Keeps the texts of others out of the ASCII filter."""
        return in_panel(super().get_line_filters())

    def notify_style_update(self) -> None:
        """Forgets the styles of the theme before."""
        super().notify_style_update()
        self._rich_styles.clear()

    def _style(self, style: str) -> Style:
        if style not in self._rich_styles:
            self._rich_styles[style] = (self.visual_style + VisualStyle.parse(style)).rich_style
        return self._rich_styles[style]
