"""Draws lines of tokens as strips: colours, cursor and selection."""

from __future__ import annotations

from functools import cached_property
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.segment import Segment
from textual.strip import Strip

from edge_tui.transcript.colour_buckets import BUCKETS
from edge_tui.transcript.wrapping import TAB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.selection import Selection
    from textual.widget import Widget

    from edge_tui.transcript.wrapping import Piece, Wrap


class TokenStyles:
    """Computes the styles of a pane of tokens, each on its first use.

    Args:
        widget: The pane.
    """

    def __init__(self, widget: Widget) -> None:
        self._widget = widget

    @cached_property
    def base(self) -> Style:
        """Style of the pane itself."""
        return self._widget.rich_style

    @cached_property
    def buckets(self) -> list[Style]:
        """Styles of the buckets, least expected first; then the same for provisional tokens."""
        style_of = self._widget.get_component_rich_style
        stable = [style_of(f"token-pane--p{bucket}") for bucket in range(BUCKETS)]
        provisional = style_of("token-pane--provisional", partial=True)
        return stable + [style + provisional for style in stable]

    @cached_property
    def shared(self) -> Style:
        """Style that lies on top of the tokens that another run has too."""
        return self._widget.get_component_rich_style("token-pane--shared", partial=True)

    @cached_property
    def cursor(self) -> Style:
        """Style that lies on top of the token under the cursor."""
        return self._widget.get_component_rich_style("token-pane--cursor", partial=True)


def draw_pieces(
    pieces: Sequence[Piece], styles: Sequence[Style], cursor: int | None, cursor_style: Style
) -> Strip:
    """Draws the pieces of one line; neighbours of one style become one segment.

    Args:
        pieces: Parts of tokens, from left to right.
        styles: Style of each piece.
        cursor: Token under the cursor.
        cursor_style: Style that lies on top of that token's own.
    """
    segments: list[Segment] = []
    text, style = "", styles[0] if styles else None
    for piece, own in zip(pieces, styles, strict=True):
        if piece.token == cursor:
            segments += [Segment(text, style), Segment(_visible(piece), own + cursor_style)]
            text, style = "", own
            continue
        if own is not style:
            segments.append(Segment(text, style))
            text, style = "", own
        text += _text(piece)
    segments.append(Segment(text, style))
    return Strip(segment for segment in segments if segment.text)


def mark_selection(strip: Strip, span: tuple[int, int], width: int, style: Style) -> Strip:
    """Paints the selected columns of a line; an end below 0 is the end of the line."""
    start, end = span
    end = width if end < 0 else min(end, width)
    return Strip.join(
        [strip.crop(0, start), strip.crop(start, end).apply_style(style), strip.crop(end, width)]
    )


def cover_end(strip: Strip, cue: Segment, width: int) -> Strip:
    """Paints a cue over the end of a line, if there is room for it."""
    if cue.cell_length >= width:
        return strip
    return Strip.join([strip.crop(0, width - cue.cell_length), Strip([cue])])


def selected_text(selection: Selection, lines: Wrap, display: Sequence[str]) -> str:
    """Reads the selected text, with line breaks only where the model wrote them."""
    first = selection.start.y if selection.start is not None else 0
    last = selection.end.y if selection.end is not None else len(lines) - 1
    parts: list[str] = []
    for line in range(max(first, 0), min(last + 1, len(lines))):
        span = selection.get_span(line)
        if span is None:
            continue
        pieces = lines.pieces(display, line)
        strip = Strip([Segment("".join(map(_text, pieces)))])
        start, end = span
        parts.append(strip.crop(start, None if end < 0 else end).text)
        if line < last and pieces and pieces[-1].newline:
            parts.append("\n")
    return "".join(parts)


def centred_line(text: str, y: int, size: tuple[int, int], style: Style, base: Style) -> Strip:
    """Draws line `y` of a text that stands in the middle of a pane of `size` columns and lines."""
    width, height = size
    lines = [line for each in text.split("\n") for line in wrap(each, width - 1) or [""]]
    at = y - max((height - len(lines)) // 2, 0)
    if not text or not 0 <= at < len(lines):
        return Strip.blank(width, base)
    left = max((width - cell_len(lines[at])) // 2, 0)
    strips = [Strip.blank(left, base), Strip([Segment(lines[at], style)])]
    return Strip.join(strips).adjust_cell_length(width, base)


def _text(piece: Piece) -> str:
    return piece.text.replace("\t", " " * TAB) if "\t" in piece.text else piece.text


def _visible(piece: Piece) -> str:
    """Writes the text of a piece under the cursor, with marks for tabs and line breaks."""
    return piece.text.replace("\t", "→" + " " * (TAB - 1)) + ("↵" if piece.newline else "")
