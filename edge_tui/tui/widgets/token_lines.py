"""Wraps, scrolls and draws a growing transcript. The cursor is `token_pane`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from rich.segment import Segment
from textual.geometry import Region, Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget

from edge_tui.transcript.colour_buckets import BUCKETS, ColourBy, buckets
from edge_tui.transcript.wrapping import TokenText, Wrap
from edge_tui.tui.ascii_filter import in_text
from edge_tui.tui.widgets.token_strips import (
    TokenStyles,
    centred_line,
    cover_end,
    draw_pieces,
    mark_selection,
    selected_text,
)
from edge_tui.util.sanitise import sanitise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.style import Style
    from textual.filter import LineFilter
    from textual.selection import Selection

    from edge_tui.transcript.transcript import Transcript

_SLICE = 0.008
"""Seconds of wrapping at a time, so that a long transcript never holds up a key."""
_AT_ONCE = 8_000
"""Tokens that are taken over at a time."""


class TokenLines(ScrollView):
    """Shows a transcript as it grows.

    The owner feeds the transcript and then calls `refresh_tail`, 20 to 30 times a second. Only lines that
    changed are drawn again. At the bottom the pane follows, half a page at a time; after scrolling
    up it stays, and a cue points to the newer tokens.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"token-pane--p{bucket}" for bucket in range(BUCKETS)),
        "token-pane--provisional",
        "token-pane--shared",
        "token-pane--cursor",
        "token-pane--live",
        "token-pane--empty",
    }

    DEFAULT_CSS = """
    TokenLines {
        overflow-x: hidden;
        overflow-y: scroll;
        scrollbar-size-vertical: 1;
        & > .token-pane--p7 { color: $foreground; }
        & > .token-pane--p6 { color: $text-success; }
        & > .token-pane--p5 { color: $success; }
        & > .token-pane--p4 { color: $text-warning; }
        & > .token-pane--p3 { color: $warning; }
        & > .token-pane--p2 { color: $text-error; }
        & > .token-pane--p1 { color: $error; text-style: underline; }
        & > .token-pane--p0 { color: $error; text-style: bold underline; }
        & > .token-pane--provisional { text-style: italic; }
        & > .token-pane--shared { text-style: dim; }
        & > .token-pane--cursor { text-style: reverse; }
        & > .token-pane--live { color: $text; background: $primary; text-style: bold; }
        & > .token-pane--empty { color: $text-muted; }
    }
    TokenLines.-no-hue {
        & > .token-pane--p5, & > .token-pane--p4 { text-style: bold; }
        & > .token-pane--p3, & > .token-pane--p2 { text-style: underline; }
        & > .token-pane--p1, & > .token-pane--p0 { text-style: bold underline; }
    }
    TokenLines.-mono {
        & > .token-pane--p6, & > .token-pane--p5, & > .token-pane--p4, & > .token-pane--p3,
        & > .token-pane--p2, & > .token-pane--p1, & > .token-pane--p0 { color: $foreground; }
    }
    """

    grows: ClassVar[bool] = True
    """True where tokens may follow: the pane keeps lines free for them."""
    show_final: reactive[bool] = reactive(False, repaint=False)
    """Colour by the probability that was drawn from, rather than the model's own."""
    colour_by: reactive[ColourBy] = reactive[ColourBy]("probability", repaint=False)
    """Meaning of the colours."""
    empty_text: reactive[str] = reactive("")
    """Text of an empty pane."""
    folding: reactive[bool] = reactive(True, repaint=False)
    """True where the text between `<think>` and `</think>` is left out."""
    shared_length: reactive[int] = reactive(0, repaint=False)
    """Leading tokens that are drawn as those of another run too."""
    following: reactive[bool] = reactive(True, repaint=False)
    """True while the newest token is kept in sight."""

    def __init__(self, empty_text: str = "", **options: Any) -> None:
        super().__init__(**options)
        self.transcript: Transcript | None = None
        self._text = TokenText()
        self._wrap = Wrap(1)
        self._coming: Wrap | None = None
        self._revision = 0
        self._settled = 0
        self.token_styles = TokenStyles(self)
        self._offsets = False
        self._moving = False
        self._working = False
        self.set_reactive(TokenLines.empty_text, empty_text)

    # Methods that the pane calls.

    def show(self, transcript: Transcript | None) -> None:
        """Shows another transcript, from its end, or none."""
        self.transcript = transcript
        self._text = TokenText()
        self._wrap = Wrap(self._line_width)
        self._coming = None
        self._revision = transcript.revision if transcript is not None else 0
        self._settled = 0
        self.following = True
        self._place(top=0)
        self.refresh_tail()
        self.refresh()

    def refresh_tail(self) -> None:
        """Shows the tokens that the transcript has gained (or lost) since the last call."""
        transcript = self.transcript
        if transcript is None or not self.is_mounted:
            return
        shown, wrap = self._text, self._wrap
        was_empty, lines_before = not len(shown), len(wrap)
        dirty = lines_before - 1
        revision = transcript.revision
        if revision != self._revision:
            valid = transcript.unchanged_since(self._revision)
            self._revision = revision
            if valid < len(shown):
                dirty = min(dirty, self._take_back(shown.truncate(valid)))
        known, size = len(shown), len(transcript)
        if size > known:
            texts = transcript.folded_texts if self.folding else transcript.texts
            first = shown.extend(texts(known, min(size, known + _AT_ONCE)))
            if first < known:
                dirty = min(dirty, self._take_back(first))
        elif (
            dirty == lines_before - 1
            and transcript.stable_length == self._settled
            and wrap.wrapped_count == known
        ):
            return
        done = wrap.feed(shown.display, _SLICE) and len(shown) == size
        if transcript.stable_length != self._settled:
            dirty = min(dirty, wrap.line_of(min(transcript.stable_length, self._settled)))
            self._settled = transcript.stable_length
        self._place()
        if was_empty:
            self.refresh()
        else:
            self._refresh_lines(dirty, max(lines_before, len(wrap)))
        if not done:
            self._work_later()

    @property
    def laid_out(self) -> int:
        """The number of tokens that have been wrapped into lines."""
        return min(len(self._text), self._wrap.wrapped_count)

    @property
    def shown_text(self) -> str:
        """The displayed text, without the breaks that wrapping adds."""
        return "".join(self._text.display)

    def follow(self) -> None:
        """Goes to the newest token and stays there."""
        self.following = True
        self._place()

    # Layout.

    @property
    def _line_width(self) -> int:
        """Columns of text; one stays free for a hanging space, and for a line break under the cursor."""
        return max(self.scrollable_content_region.width - 1, 1)

    @property
    def _height(self) -> int:
        return max(self.scrollable_content_region.height, 1)

    def _take_back(self, count: int) -> int:
        """Drops the lines from token `count` on; returns the first line that differs."""
        if self._coming is not None:
            self._coming.truncate(count)
        return self._wrap.truncate(count)

    def _place(self, top: int | None = None) -> None:
        """Sets scroll range and position. While following, the range grows by half pages only, because
        each change of it costs a layout and each scroll a repaint of the pane.
        """
        height, lines = self._height, len(self._wrap)
        at = round(self.scroll_y) if top is None else top
        if self.following:
            if lines > at + height or lines <= at:
                shown = (height + 1) // 2 if self.grows else height
                at = max(lines - shown, 0) if lines > height else 0
            total = at + height
        else:
            total = self.virtual_size.height
            if lines > total or total - lines > height:
                total = max(lines + height // 2, at + height)
        size = Size(self.scrollable_content_region.width, total)
        self._moving = True
        try:
            if size != self.virtual_size:
                self._grow(size)
            if at != round(self.scroll_y):
                self.scroll_to(y=at, animate=False, immediate=True, force=True)
        finally:
            self._moving = False

    def _grow(self, size: Size) -> None:
        """Sets the scroll range. Nothing else on the screen depends on it, so no layout is asked for."""
        self.set_reactive(Widget.virtual_size, size)
        self.vertical_scrollbar.window_virtual_size = size.height

    def on_resize(self) -> None:
        """Begins to wrap the tokens for the new width."""
        if self.scrollable_content_region.width < 2:
            return  # hidden, as below the minimum: lines of one character each would show on the way back
        width = self._line_width
        current = self._coming or self._wrap
        if current.width != width:
            self._coming = Wrap(width)
            self._rewrap()
        self._place()
        self.refresh()

    def _rewrap(self) -> None:
        """Wraps for a new width in slices; the old lines stay in place until it is done."""
        coming = self._coming
        if coming is None:
            return
        if not coming.feed(self._text.display, _SLICE):
            self._work_later()
            return
        anchor = self._token_at_top()
        self._wrap, self._coming = coming, None
        top = None if anchor is None or self.following else coming.line_of(anchor)
        if top is not None:
            self._grow(Size(self.scrollable_content_region.width, len(coming) + self._height // 2))
        self._place(top)
        self.refresh()

    def _work_later(self) -> None:
        if not self._working:
            self._working = True
            self.set_timer(0.01, self._work)

    def _work(self) -> None:
        self._working = False
        self._rewrap()
        self.refresh_tail()

    def _token_at_top(self) -> int | None:
        return self._wrap.hit(self._text.display, round(self.scroll_y), 0)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Follows the newest token from the end on, and no longer above it."""
        super().watch_scroll_y(old_value, new_value)
        if not self._moving:
            self.following = new_value >= self.max_scroll_y

    def watch_following(self, following: bool) -> None:
        """Repaints the line with the cue that leads back to the end."""
        row = self._height - 1
        self.refresh(Region(0, row, self.scrollable_content_region.width, 1))

    # Drawing.

    def notify_style_update(self) -> None:
        """Computes the styles anew."""
        super().notify_style_update()
        self.token_styles = TokenStyles(self)

    def on_mount(self) -> None:
        """Marks a pane without hues or colours."""
        self.set_class(self.app.no_color or self.app.current_theme.ansi, "-no-hue")
        self.set_class(self.app.no_color, "-mono")

    def on_enter(self) -> None:
        """Adds the offsets that selecting by mouse needs."""
        self._mark_offsets(True)

    def on_leave(self) -> None:
        """Leaves the offsets out again."""
        self._mark_offsets(self.mouse_hover)

    def _mark_offsets(self, wanted: bool) -> None:
        """Adds offsets to segments, which selecting by mouse needs, only while the mouse is here.

        They make each style unique, and drawing slow.
        """
        if wanted != self._offsets:
            self._offsets = wanted
            self.refresh()

    def watch_show_final(self) -> None:
        """Repaints in the colours of the other probabilities."""
        self.refresh()

    watch_colour_by = watch_show_final

    def watch_shared_length(self, old: int, new: int) -> None:
        """Repaints the tokens that are shared now, or no longer."""
        first, last = sorted(min(each, self.laid_out) for each in (old, new))
        if first < last:
            self._refresh_lines(self._wrap.line_of(first), self._wrap.line_of(last - 1) + 1)

    def watch_folding(self) -> None:
        """Wraps the tokens again, and stays at the same token."""
        if self.transcript is None:
            return
        top, following = self._token_at_top(), self.following
        TokenLines.show(self, self.transcript)
        if not following and top is not None:
            self.following = False
            self._place(self._wrap.line_of(top))

    def selection_updated(self, selection: Selection | None) -> None:
        """Repaints with the new selection."""
        self.refresh()

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Keeps the model's text out of the ASCII filter."""
        return in_text(super().get_line_filters())

    def render_line(self, y: int) -> Strip:
        """Draws one line; the last one with a cue where the end is out of sight."""
        width, height, base = self.scrollable_content_region.width, self._height, self.token_styles.base
        if not len(self._text):
            style = self.get_component_rich_style("token-pane--empty")
            return centred_line(sanitise(self.empty_text), y, (width, height), style, base)
        line = round(self.scroll_y) + y
        strip = self._draw(line, width) if line < len(self._wrap) else Strip.blank(width, base)
        if y == height - 1 and not self.following and line < len(self._wrap) - 1:
            running = self.transcript is not None and self.transcript.finished is None
            style = self.get_component_rich_style("token-pane--live")
            return cover_end(strip, Segment(" ↓ live " if running else " ↓ end ", style), width)
        return strip

    def _draw(self, line: int, width: int) -> Strip:
        """Draws a wrapped line with colours, cursor and selection."""
        transcript = self.transcript
        assert transcript is not None
        pieces = self._wrap.pieces(self._text.display, line)
        styles: list[Style] = []
        if pieces:
            first = pieces[0].token
            colours = buckets(transcript, self.colour_by, self.show_final, first, pieces[-1].token + 1)
            styles = [self.style_of(piece.token, colours[piece.token - first]) for piece in pieces]
        strip = draw_pieces(pieces, styles, self.marked, self.token_styles.cursor)
        strip = strip.adjust_cell_length(width, self.token_styles.base)
        if (selection := self.text_selection) is not None and (span := selection.get_span(line)) is not None:
            style = self.screen.get_component_rich_style("screen--selection", partial=True)
            strip = mark_selection(strip, span, width, style)
        return strip.apply_offsets(0, line) if self._offsets else strip

    def style_of(self, token: int, bucket: int) -> Style:
        """Returns the style of a token, by the bucket of its number."""
        style = self.token_styles.buckets[bucket + BUCKETS * (token >= self._settled)]
        return style + self.token_styles.shared if token < self.shared_length else style

    @property
    def marked(self) -> int | None:
        """The token that is drawn under the cursor."""
        return None

    def _refresh_lines(self, first: int, stop: int) -> None:
        top = round(self.scroll_y)
        first, stop = max(first, top), min(stop, top + self._height)
        if first < stop:
            self.refresh(Region(0, first - top, self.scrollable_content_region.width, stop - first))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """Returns the selected text."""
        return selected_text(selection, self._wrap, self._text.display), "\n"
