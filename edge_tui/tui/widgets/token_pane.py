"""The live token pane: thousands of tokens a second, each coloured by how expected it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from edge_tui.sanitise import sanitise
from edge_tui.tui.buckets import BUCKETS, SURPRISING, ColourBy, buckets
from edge_tui.tui.wrap import TAB, Piece, TokenText, Wrap

if TYPE_CHECKING:
    from rich.style import Style
    from textual import events
    from textual.selection import Selection

    from edge_tui.transcript import Transcript

_SLICE = 0.008
"""Seconds of wrapping at a time, so that a long transcript never holds up a key."""
_AT_ONCE = 8_000
"""Tokens that are added or wrapped again without slicing."""
_CACHED = 4_096
"""Lines kept drawn."""


def _binding(keys: str, action: str, label: str, tooltip: str) -> Binding:
    return Binding(keys, action, label, show=False, tooltip=tooltip, id=f"tokens.{action}")


class TokenPane(ScrollView, can_focus=True):
    """Shows a transcript as it grows.

    The owner feeds the transcript and then calls `refresh_tail`, 20 to 30 times a second. Only lines that
    changed are drawn again. At the bottom the pane follows, half a page at a time; a reader who scrolled up
    is left alone and told that there is more.
    """

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        *(f"token-pane--p{bucket}" for bucket in range(BUCKETS)),
        "token-pane--provisional",
        "token-pane--cursor",
        "token-pane--live",
        "token-pane--empty",
    }

    DEFAULT_CSS = """
    TokenPane {
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
        & > .token-pane--cursor { text-style: reverse; }
        & > .token-pane--live { color: $text; background: $primary; text-style: bold; }
        & > .token-pane--empty { color: $text-muted; }
    }
    TokenPane.-no-hue {
        & > .token-pane--p5, & > .token-pane--p4 { text-style: bold; }
        & > .token-pane--p3, & > .token-pane--p2 { text-style: underline; }
        & > .token-pane--p1, & > .token-pane--p0 { text-style: bold underline; }
    }
    TokenPane.-mono {
        & > .token-pane--p6, & > .token-pane--p5, & > .token-pane--p4, & > .token-pane--p3,
        & > .token-pane--p2, & > .token-pane--p1, & > .token-pane--p0 { color: $foreground; }
    }
    """

    BINDINGS: ClassVar[list[Binding]] = [  # type: ignore[assignment]
        _binding("left,h", "cursor_left", "token ←", "The token before."),
        _binding("right,l", "cursor_right", "token →", "The token after."),
        _binding("up,k", "cursor_up", "line ↑", "The token above."),
        _binding("down,j", "cursor_down", "line ↓", "The token below."),
        _binding("home", "cursor_first", "first", "The first token."),
        _binding("end", "live", "live", "Follow the newest token again."),
        _binding("n", "surprise(1)", "surprise →", "The next token that the model found unlikely."),
        _binding("N", "surprise(-1)", "surprise ←", "The previous token that the model found unlikely."),
        _binding("enter", "open", "inspect", "Go to the alternatives of the token under the cursor."),
        _binding("a", "runner_up", "runner-up", "Cut here and go on with the likeliest other token."),
    ]

    cursor: reactive[int | None] = reactive[int | None](None, repaint=False)
    """Position of the token under the cursor on the transcript's path, or None."""
    show_final: reactive[bool] = reactive(False, repaint=False)
    """Colour by the probability that was drawn from, rather than the model's own."""
    colour_by: reactive[ColourBy] = reactive[ColourBy]("probability", repaint=False)
    """What the colours mean."""
    empty_text: reactive[str] = reactive("")
    """What to say when there is nothing to show."""
    following: reactive[bool] = reactive(True, repaint=False)
    """Whether the newest token is kept in sight."""

    class CursorMoved(Message):
        """The cursor is on another token, or (None) on none."""

        def __init__(self, pane: TokenPane, index: int | None) -> None:
            super().__init__()
            self.pane = pane
            self.index = index

        @property
        def control(self) -> TokenPane:
            return self.pane

    class Opened(Message):
        """The user wants to see the alternatives of a token (enter, or a click on the cursor)."""

        def __init__(self, pane: TokenPane, index: int) -> None:
            super().__init__()
            self.pane = pane
            self.index = index

        @property
        def control(self) -> TokenPane:
            return self.pane

    class TakeAlternative(Message):
        """The user wants the run to be cut before `index` and to go on with `token_id` there."""

        def __init__(self, index: int, token_id: int) -> None:
            super().__init__()
            self.index = index
            self.token_id = token_id

    class FollowChanged(Message):
        """The pane began or ceased to follow the newest token."""

        def __init__(self, pane: TokenPane, following: bool) -> None:
            super().__init__()
            self.pane = pane
            self.following = following

        @property
        def control(self) -> TokenPane:
            return self.pane

    def __init__(
        self,
        empty_text: str = "",
        *,
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.transcript: Transcript | None = None
        self._text = TokenText()
        self._wrap = Wrap(1)
        self._coming: Wrap | None = None
        self._revision = 0
        self._settled = 0
        self._strips: dict[int, Strip] = {}
        self._styles: list[Style] | None = None
        self._base: Style | None = None
        self._offsets = False
        self._goal_x: int | None = None
        self._moving = False
        self._working = False
        self.set_reactive(TokenPane.empty_text, empty_text)

    # What the owner calls.

    def show(self, transcript: Transcript | None) -> None:
        """Shows another transcript, from its end, or none."""
        self.transcript = transcript
        self._text = TokenText()
        self._wrap = Wrap(self._line_width)
        self._coming = None
        self._revision = transcript.revision if transcript is not None else 0
        self._settled = 0
        self._strips.clear()
        self.cursor = None
        self.following = True
        self._place(top=0)
        self.refresh_tail()
        self.refresh()

    def refresh_tail(self) -> None:
        """Takes over what the transcript has gained (or lost) since the last call."""
        transcript = self.transcript
        if transcript is None or not self.is_mounted:
            return
        shown, wrap = self._text, self._wrap
        was_empty, lines_before = not len(shown), len(wrap)
        dirty = lines_before - 1
        revision = transcript.revision
        if revision != self._revision:
            valid = transcript.valid_since(self._revision)
            self._revision = revision
            if valid < len(shown):
                dirty = min(dirty, self._take_back(shown.truncate(valid)))
        known, size = len(shown), len(transcript)
        if size > known:
            first = shown.extend(transcript.texts(known, min(size, known + _AT_ONCE)))
            if first < known:
                dirty = min(dirty, self._take_back(first))
        elif dirty == lines_before - 1 and transcript.settled == self._settled and wrap.fed == known:
            return
        done = wrap.feed(shown.shown, _SLICE) and len(shown) == size
        if transcript.settled != self._settled:
            dirty = min(dirty, wrap.line_of(min(transcript.settled, self._settled)))
            self._settled = transcript.settled
        if self.cursor is not None and self.cursor >= len(shown):
            self.cursor = len(shown) - 1 if len(shown) else None
        self._drop(dirty)
        self._place()
        if was_empty:
            self.refresh()
        else:
            self._refresh_lines(dirty, max(lines_before, len(wrap)))
        if not done:
            self._work_later()

    @property
    def laid_out(self) -> int:
        """How many tokens have taken their place in lines."""
        return min(len(self._text), self._wrap.fed)

    @property
    def shown_text(self) -> str:
        """The text as it is displayed, without the breaks that wrapping adds."""
        return "".join(self._text.shown)

    def follow(self) -> None:
        """Goes to the newest token and stays there."""
        self.following = True
        self._place()

    # Layout.

    @property
    def _line_width(self) -> int:
        """One column stays free: for a hanging space, and to show a line break under the cursor."""
        return max(self.scrollable_content_region.width - 1, 1)

    @property
    def _height(self) -> int:
        return max(self.scrollable_content_region.height, 1)

    def _take_back(self, count: int) -> int:
        """Forgets the lines from token `count` on; returns the first line that differs."""
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
                at = max(lines - (height + 1) // 2, 0) if lines > height else 0
            total = at + height
        else:
            total = self.virtual_size.height
            if lines > total or total - lines > height:
                total = max(lines + height // 2, at + height)
        size = Size(self.scrollable_content_region.width, total)
        self._moving = True
        try:
            if size != self.virtual_size:
                self.virtual_size = size
            if at != round(self.scroll_y):
                self.scroll_to(y=at, animate=False, immediate=True, force=True)
        finally:
            self._moving = False

    def on_resize(self) -> None:
        width = self._line_width
        current = self._coming or self._wrap
        if current.width != width:
            self._coming = Wrap(width)
            self._rewrap()
        self._strips.clear()
        self._place()
        self.refresh()

    def _rewrap(self) -> None:
        """Wraps for a new width in slices; the old lines stay in place until it is done."""
        coming = self._coming
        if coming is None:
            return
        if not coming.feed(self._text.shown, _SLICE):
            self._work_later()
            return
        anchor = self._token_at_top()
        self._wrap, self._coming = coming, None
        self._strips.clear()
        top = None if anchor is None or self.following else coming.line_of(anchor)
        if top is not None:
            self.virtual_size = Size(self.scrollable_content_region.width, len(coming) + self._height // 2)
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
        return self._wrap.hit(self._text.shown, round(self.scroll_y), 0)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self._moving:
            self.following = new_value >= self.max_scroll_y

    def watch_following(self, following: bool) -> None:
        self._refresh_rows(self._height - 1)
        if self.is_mounted:
            self.post_message(self.FollowChanged(self, following))

    # Drawing.

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles = self._base = None
        self._strips.clear()

    def on_mount(self) -> None:
        self.set_class(self.app.no_color or self.app.current_theme.ansi, "-no-hue")
        self.set_class(self.app.no_color, "-mono")

    def on_enter(self) -> None:
        self._mark_offsets(True)

    def on_leave(self) -> None:
        self._mark_offsets(self.mouse_hover)

    def _mark_offsets(self, wanted: bool) -> None:
        """Selecting by mouse needs each segment to know its place, which makes every style unique and
        drawing slow: only while the mouse is here.
        """
        if wanted != self._offsets:
            self._offsets = wanted
            self._strips.clear()
            self.refresh()

    def watch_show_final(self) -> None:
        self._strips.clear()
        self.refresh()

    watch_colour_by = watch_show_final

    def selection_updated(self, selection: Selection | None) -> None:
        self._strips.clear()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        if not len(self._text):
            return self._empty_line(y, width)
        line = round(self.scroll_y) + y
        strip = self._strips.get(line)
        if strip is None:
            strip = (
                self._draw(line, width) if line < len(self._wrap) else Strip.blank(width, self._base_style)
            )
            if len(self._strips) >= _CACHED:
                self._strips.clear()
            self._strips[line] = strip
        if y == self._height - 1 and not self.following and line < len(self._wrap) - 1:
            return self._live_cue(strip, width)
        return strip

    def _draw(self, line: int, width: int) -> Strip:
        transcript = self.transcript
        assert transcript is not None
        pieces = self._wrap.pieces(self._text.shown, line)
        segments: list[Segment] = []
        if pieces:
            first = pieces[0].token
            colours = buckets(transcript, self.colour_by, self.show_final, first, pieces[-1].token + 1)
            styles = self.styles_of_buckets
            run, style = "", styles[0]
            for piece in pieces:
                mine = styles[colours[piece.token - first] + BUCKETS * (piece.token >= self._settled)]
                if piece.token == self._marked:
                    segments.append(Segment(run, style))
                    run, style = "", mine
                    segments.append(Segment(_marked(piece), mine + self._cursor_style))
                    continue
                if mine is not style:
                    segments.append(Segment(run, style))
                    run, style = "", mine
                run += piece.text.replace("\t", " " * TAB) if "\t" in piece.text else piece.text
            segments.append(Segment(run, style))
        strip = Strip(segment for segment in segments if segment.text)
        strip = strip.adjust_cell_length(width, self._base_style)
        if (selection := self.text_selection) is not None and (span := selection.get_span(line)) is not None:
            start, end = span
            chosen = self.screen.get_component_rich_style("screen--selection", partial=True)
            end = width if end < 0 else min(end, width)
            strip = Strip.join(
                [strip.crop(0, start), strip.crop(start, end).apply_style(chosen), strip.crop(end, width)]
            )
        return strip.apply_offsets(0, line) if self._offsets else strip

    @property
    def _base_style(self) -> Style:
        if self._base is None:
            self._base = self.rich_style
        return self._base

    @property
    def styles_of_buckets(self) -> list[Style]:
        """Styles of the buckets, least expected first; then the same for provisional tokens."""
        if self._styles is None:
            settled = [self.get_component_rich_style(f"token-pane--p{bucket}") for bucket in range(BUCKETS)]
            provisional = self.get_component_rich_style("token-pane--provisional", partial=True)
            self._styles = settled + [style + provisional for style in settled]
        return self._styles

    @property
    def _cursor_style(self) -> Style:
        return self.get_component_rich_style("token-pane--cursor", partial=True)

    @property
    def _marked(self) -> int | None:
        """The token that is drawn as the cursor: where the cursor's own token draws nothing, the next."""
        at = self.cursor
        shown = self._text.shown
        while at is not None and at < len(shown) - 1 and not shown[at]:
            at += 1
        return at

    def _live_cue(self, strip: Strip, width: int) -> Strip:
        running = self.transcript is not None and self.transcript.finished is None
        cue = Strip(
            [Segment(" ↓ live " if running else " ↓ end ", self.get_component_rich_style("token-pane--live"))]
        )
        if cue.cell_length >= width:
            return strip
        return Strip.join([strip.crop(0, width - cue.cell_length), cue])

    def _empty_line(self, y: int, width: int) -> Strip:
        text = sanitise(self.empty_text)
        wrap, words = Wrap(width - 1), TokenText()
        words.extend([text])
        wrap.feed(words.shown)
        line = y - max((self._height - len(wrap)) // 2, 0)
        if not text or not 0 <= line < len(wrap):
            return Strip.blank(width, self._base_style)
        said = "".join(piece.text for piece in wrap.pieces(words.shown, line)).strip()
        strip = Strip([Segment(said, self.get_component_rich_style("token-pane--empty"))])
        left = max((width - strip.cell_length) // 2, 0)
        return Strip.join([Strip.blank(left, self._base_style), strip]).adjust_cell_length(
            width, self.rich_style
        )

    def _drop(self, first: int) -> None:
        """Forgets drawn lines from `first` on."""
        if self._strips and max(self._strips) >= first:
            self._strips = {line: strip for line, strip in self._strips.items() if line < first}

    def _refresh_lines(self, first: int, stop: int) -> None:
        top = round(self.scroll_y)
        first, stop = max(first, top), min(stop, top + self._height)
        if first < stop:
            self.refresh(Region(0, first - top, self.scrollable_content_region.width, stop - first))

    def _refresh_rows(self, row: int) -> None:
        self.refresh(Region(0, row, self.scrollable_content_region.width, 1))

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The selected text, with line breaks only where the model wrote them."""
        shown = self._text.shown
        first = selection.start.y if selection.start is not None else 0
        last = selection.end.y if selection.end is not None else len(self._wrap) - 1
        parts: list[str] = []
        for line in range(max(first, 0), min(last + 1, len(self._wrap))):
            span = selection.get_span(line)
            if span is None:
                continue
            pieces = self._wrap.pieces(shown, line)
            strip = Strip([Segment("".join(p.text.replace("\t", " " * TAB) for p in pieces))])
            start, end = span
            parts.append(strip.crop(start, None if end < 0 else end).text)
            if line < last and pieces and pieces[-1].newline:
                parts.append("\n")
        return "".join(parts), "\n"

    # The cursor.

    def watch_cursor(self, old: int | None, new: int | None) -> None:
        for token in (old, new):
            if token is not None and token < len(self._text):
                first, last = self._lines_of(token)
                for line in range(first, last + 1):
                    self._strips.pop(line, None)
                self._refresh_lines(first, last + 1)
        if new is not None and new < len(self._text):
            self._scroll_into_view(self._wrap.line_of(new))
        if self.is_mounted:
            self.post_message(self.CursorMoved(self, new))

    def _lines_of(self, token: int) -> tuple[int, int]:
        """First and last line on which a token is drawn, or marked."""
        return self._wrap.line_of(token), self._wrap.line_of(min(token + 2, self._wrap.fed))

    def _scroll_into_view(self, first: int) -> None:
        if not self.size:
            return
        top = round(self.scroll_y)
        if first < top:
            self.scroll_to(y=first, animate=False, immediate=True)
        elif first >= top + self._height:
            self.scroll_to(y=first - self._height + 1, animate=False, immediate=True)

    def _start(self) -> int | None:
        """Where a cursor that isn't there yet appears: the last token in sight."""
        if not len(self._text):
            return None
        bottom = min(round(self.scroll_y) + self._height, len(self._wrap)) - 1
        for line in range(bottom, -1, -1):
            pieces = self._wrap.pieces(self._text.shown, line)
            if pieces:
                return pieces[-1].token
        return len(self._text) - 1

    def _move(self, step: int) -> None:
        self._goal_x = None
        if self.cursor is None:
            self.cursor = self._start()
        else:
            self.cursor = min(max(self.cursor + step, 0), len(self._text) - 1)

    def action_cursor_left(self) -> None:
        self._move(-1)

    def action_cursor_right(self) -> None:
        self._move(1)

    def action_cursor_up(self) -> None:
        self._move_line(-1)

    def action_cursor_down(self) -> None:
        self._move_line(1)

    def _move_line(self, step: int) -> None:
        if self.cursor is None:
            self.cursor = self._start()
            return
        shown, wrap = self._text.shown, self._wrap
        marked = self._marked
        assert marked is not None
        line = wrap.line_of(marked)
        if self._goal_x is None:
            x = 0
            for piece in wrap.pieces(shown, line):
                if piece.token == marked:
                    break
                x += piece.cells
            self._goal_x = x
        line += step
        while 0 <= line < len(wrap):
            hit = wrap.hit(shown, line, self._goal_x)
            if hit is not None and hit != self.cursor:
                self.cursor = hit
                return
            line += step

    def action_cursor_first(self) -> None:
        self._goal_x = None
        if len(self._text):
            self.cursor = 0

    def action_live(self) -> None:
        """Leaves the cursor and follows the newest token again."""
        self._goal_x = None
        self.cursor = None
        self.follow()

    def action_surprise(self, step: int) -> None:
        """Jumps to the next (or previous) token in one of the least expected buckets."""
        transcript = self.transcript
        if transcript is None or not len(self._text):
            return
        at = self.cursor
        if step > 0:
            start, stop = (at + 1 if at is not None else 0), len(self._text)
        else:
            start, stop = 0, (at if at is not None else len(self._text))
        found = [
            i
            for i, bucket in enumerate(
                buckets(transcript, self.colour_by, self.show_final, start, stop), start
            )
            if bucket <= SURPRISING
        ]
        if found:
            self._goal_x = None
            self.cursor = found[0] if step > 0 else found[-1]
        else:
            self.app.bell()

    def action_open(self) -> None:
        if self.cursor is None:
            self.cursor = self._start()
        if self.cursor is not None:
            self.post_message(self.Opened(self, self.cursor))

    def action_runner_up(self) -> None:
        """Asks for the likeliest token other than the one under the cursor."""
        if self.transcript is None or self.cursor is None or self.cursor >= len(self.transcript):
            return
        token = self.transcript.token(self.cursor)
        other = next((alternative.id for alternative in token.top if alternative.id != token.id), None)
        if other is not None:
            self.post_message(self.TakeAlternative(self.cursor, other))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or not len(self._text) or self.text_selection is not None:
            return
        if offset.y == self._height - 1 and not self.following and offset.x >= self._line_width - 7:
            self.action_live()
            return
        hit = self._wrap.hit(self._text.shown, round(self.scroll_y) + offset.y, offset.x)
        if hit is None:
            return
        if hit == self.cursor:
            self.post_message(self.Opened(self, hit))
        self._goal_x = None
        self.cursor = hit


def _marked(piece: Piece) -> str:
    """A token under the cursor: what is otherwise invisible is seen."""
    return piece.text.replace("\t", "→" + " " * (TAB - 1)) + ("↵" if piece.newline else "")
