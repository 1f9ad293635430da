"""Shows a text in the room that a panel has for it, with an ellipsis where it is cut."""

from __future__ import annotations

from typing import Any, cast

from rich.cells import cell_len
from textual.content import Content
from textual.widgets import Static


class FittedText(Static):
    """Wraps a text, and ends its last line in sight with an ellipsis where more lines follow."""

    def __init__(self, content: Content | str = "", **options: Any) -> None:
        super().__init__(content, markup=False, **options)

    def get_content_height(self, container: object, viewport: object, width: int) -> int:
        """Returns the lines of the whole text."""
        return len(self._text.wrap(max(width, 1)))

    def render(self) -> Content:
        """Writes as many lines as there is room for."""
        return fit_lines(self._text, *self.content_size)

    @property
    def _text(self) -> Content:
        return cast("Content", self.visual)


def fit_lines(text: Content, width: int, height: int) -> Content:
    """Wraps a text to `width` cells, and cuts it to `height` lines with an ellipsis at the cut."""
    lines = text.wrap(max(width, 1))
    if len(lines) <= height:
        return text
    if height <= 0:
        return Content("")
    last = lines[height - 1]
    if last.cell_length > width - 2:
        # Between words, if there is more than one on the line.
        words = last.truncate(width - 1).plain.rpartition(" ")[0]
        last = last.truncate(cell_len(words) or width - 2)
    last = last.rstrip(" ,;.:")
    return Content("\n").join([*lines[: height - 1], last + " …"])
